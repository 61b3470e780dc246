//! The variables of OpenTelemetry that decide whether traces are exported. A value that could not be honoured is refused,
//! so that traces are not lost in silence.

/// The variables with the address of the trace collector, by priority.
const ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];
const PROTOCOLS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"];
const INSECURE: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_INSECURE", "OTEL_EXPORTER_OTLP_INSECURE"];
const SAMPLER: &str = "OTEL_TRACES_SAMPLER";
const SAMPLER_RATIO: &str = "OTEL_TRACES_SAMPLER_ARG";
const SAMPLERS: [&str; 4] = ["always_on", "always_off", "parentbased_always_on", "parentbased_always_off"];
const RATIO_SAMPLERS: [&str; 2] = ["traceidratio", "parentbased_traceidratio"];

/// The variables of a process.
pub(super) struct OtelVariables<F>(pub F);

impl<F: Fn(&str) -> Option<String>> OtelVariables<F> {
    /// Returns whether traces are exported.
    pub(super) fn export_traces(&self) -> anyhow::Result<bool> {
        let Some((name, endpoint)) = self.first(ENDPOINTS) else { return Ok(false) };
        if self.get("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
            return Ok(false);
        }
        match self.get("OTEL_TRACES_EXPORTER").as_deref() {
            Some("none") => return Ok(false),
            None | Some("otlp") => {}
            Some(other) => {
                anyhow::bail!("OTEL_TRACES_EXPORTER is {other}, but must be otlp or none")
            }
        }
        self.check_endpoint(name, &endpoint)?;
        self.check_sampler()?;
        Ok(true)
    }

    /// Returns the variable that asks for another protocol than gRPC.
    pub(super) fn other_protocol(&self) -> Option<(&'static str, String)> {
        self.first(PROTOCOLS).filter(|(_, protocol)| protocol != "grpc")
    }

    /// Refuses an endpoint that needs TLS. By OTLP's rules, an endpoint without a scheme does, unless the variable for
    /// insecure connections is true.
    fn check_endpoint(&self, name: &str, endpoint: &str) -> anyhow::Result<()> {
        let is_plain = match endpoint.split_once("://") {
            Some((scheme, _)) => !scheme.eq_ignore_ascii_case("https"),
            None => self.first(INSECURE).is_some_and(|(_, insecure)| insecure.eq_ignore_ascii_case("true")),
        };
        anyhow::ensure!(
            is_plain,
            "{name} is {endpoint}, but traces are exported by gRPC without TLS only, for example to http://localhost:4317"
        );
        Ok(())
    }

    /// Refuses a sampler that the library does not know: it would sample every trace in its place.
    fn check_sampler(&self) -> anyhow::Result<()> {
        let Some(sampler) = self.get(SAMPLER) else { return Ok(()) };
        let sampler = sampler.as_str();
        let known = [&SAMPLERS[..], &RATIO_SAMPLERS[..]].concat();
        anyhow::ensure!(
            known.contains(&sampler),
            "{SAMPLER} is {sampler}, but must be one of: {}",
            known.join(", ")
        );
        if let Some(ratio) = self.get(SAMPLER_RATIO).filter(|_| RATIO_SAMPLERS.contains(&sampler)) {
            let is_valid = ratio.parse().is_ok_and(|ratio: f64| (0.0..=1.0).contains(&ratio));
            anyhow::ensure!(is_valid, "{SAMPLER_RATIO} is {ratio}, but must be a number from 0 to 1");
        }
        Ok(())
    }

    /// Returns a variable that is set and not empty.
    pub(super) fn get(&self, name: &str) -> Option<String> {
        (self.0)(name).filter(|value| !value.is_empty())
    }

    fn first(&self, names: [&'static str; 2]) -> Option<(&'static str, String)> {
        names.into_iter().find_map(|name| Some((name, self.get(name)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exports(variables: &[(&str, &str)]) -> Result<bool, String> {
        let value = |name: &str| {
            let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4317");
            let all = variables.iter().copied().chain([endpoint]);
            all.filter(|(known, _)| *known == name).map(|(_, value)| value.to_owned()).next()
        };
        OtelVariables(value).export_traces().map_err(|error| error.to_string())
    }

    #[test]
    fn traces_can_be_turned_off_by_each_variable() {
        assert_eq!(exports(&[]), Ok(true));
        assert_eq!(exports(&[("OTEL_SDK_DISABLED", "True")]), Ok(false));
        assert_eq!(exports(&[("OTEL_TRACES_EXPORTER", "none")]), Ok(false));
        assert_eq!(exports(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "")]), Ok(false));
        assert_eq!(exports(&[("OTEL_SDK_DISABLED", "false"), ("OTEL_TRACES_EXPORTER", "otlp")]), Ok(true));
    }

    #[test]
    fn what_cannot_be_honoured_is_refused() {
        let refused = |name: &str, value: &str| {
            let error =
                exports(&[("OTEL_TRACES_SAMPLER", "traceidratio"), (name, value)]).expect_err("refused");
            assert!(error.starts_with(&format!("{name} is {value}, but must be")), "{error}");
        };
        refused("OTEL_TRACES_EXPORTER", "zipkin");
        refused("OTEL_TRACES_SAMPLER_ARG", "1.5");
        refused("OTEL_TRACES_SAMPLER_ARG", "half");
        let error = exports(&[("OTEL_TRACES_SAMPLER", "jaeger_remote")]).expect_err("refused");
        assert!(
            error.starts_with("OTEL_TRACES_SAMPLER is jaeger_remote, but must be one of: always_on"),
            "{error}"
        );
        assert_eq!(
            exports(&[("OTEL_TRACES_SAMPLER", "always_off"), ("OTEL_TRACES_SAMPLER_ARG", "x")]),
            Ok(true)
        );
    }
}
