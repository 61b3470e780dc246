//! Builds a [`Ruleset`] from a parsed rule file: gives every name an index and converts every amount for every currency.

use std::collections::{BTreeSet, HashMap};

use toml::Spanned;

use super::{
    RuleFileError, Ruleset,
    check::{Fault, Lookup},
    example::{self, ExampleCost},
    expression::Expression,
    feature::{Aggregate, Feature, Measure},
    layout::HistoryLayout,
    lists::{Lists, ReadListFile},
    money::{Decimal, scaled_minor_units},
    reason::Reason,
    rule_file::{
        AggregateIn, DEFAULT_CURRENCY, FeatureIn, LevelsIn, ModeIn, RuleFile, RuleIn, RuleText, check_name,
        did_you_mean, read, version_of,
    },
    ruleset::{Mode, Rule, RuleNotes, TrackedText},
    scale::Scale,
    suppression,
    symbol::{Symbol, VARIABLES},
    types::type_of,
};
use crate::domain::{CURRENCIES, Currency, Direction, bounded_text};

/// The longest rule file.
const FILE_BYTES_MAX: usize = 4 << 20;
/// `history_rows` if the file does not set it.
const HISTORY_ROWS_DEFAULT: usize = 500;
/// The largest `history_rows`: each account in memory may hold this many rows.
const HISTORY_ROWS_MAX: usize = 5_000;
/// The longest window: ten years.
const WINDOW_SECONDS_MAX: u64 = 10 * 366 * 86_400;
const RULES_MAX: usize = 500;
const FEATURES_MAX: usize = 200;
/// The most named amounts. Each is converted for every currency.
const AMOUNTS_MAX: usize = 200;
/// The longest text of all conditions together in bytes. It limits how long a file is parsed.
const CONDITIONS_BYTES_MAX: usize = 512 << 10;
/// The longest reason in bytes, before its names are replaced.
const REASON_BYTES_MAX: usize = 1_000;
/// The most tags of a rule, and their length in characters.
const TAGS_MAX: usize = 20;
const TAG_LENGTH_MAX: usize = 64;
/// The longest description and source of a rule in characters.
const NOTE_LENGTH_MAX: usize = 1_000;
/// The most steps of all rules together, for one event.
const COST_MAX: u64 = 100_000;

impl Ruleset {
    /// Parses and checks a rule file that names no list files. Time, memory and stack are limited for any content.
    pub fn parse(text: &str) -> Result<Self, RuleFileError> {
        Self::parse_with(text, &|_| Err("cannot be read: these rules are not in a file".into()))
    }

    /// Like [`Ruleset::parse`], for a file that may name list files. The version depends on their content.
    pub fn parse_with(text: &str, read_list: ReadListFile<'_>) -> Result<Self, RuleFileError> {
        let source = RuleText(text);
        if text.len() > FILE_BYTES_MAX {
            return Err(source.error(0..0, "rule file", "is larger than 4 MiB"));
        }
        let (file, mut content) = read(text)?;
        let lists = Lists::read(&file.lists, source, read_list, &mut content)?;
        Builder { source, file: &file, lists }.build(&version_of(content))
    }
}

struct Builder<'a> {
    source: RuleText<'a>,
    file: &'a RuleFile,
    lists: Lists,
}

/// The names that rules can use.
struct Names {
    symbols: HashMap<Box<str>, Symbol>,
    amount_names: Vec<Box<str>>,
    tracked: Vec<TrackedText>,
}

impl Names {
    fn lookup(&self, name: &str) -> Result<Symbol, String> {
        self.symbols.get(name).copied().ok_or_else(|| {
            let mut known: Vec<&str> = self.symbols.keys().map(|known| &**known).collect();
            known.sort_unstable();
            format!("there is no {name}{}", did_you_mean(name, known.into_iter()))
        })
    }
}

impl Builder<'_> {
    /// Builds the ruleset, or returns the first error in the meaning of the file.
    pub fn build(&self, version: &str) -> Result<Ruleset, RuleFileError> {
        let levels = self.levels(&self.file.levels)?;
        let mut names = Names {
            symbols: VARIABLES.iter().map(|(name, v)| ((*name).into(), Symbol::Variable(*v))).collect(),
            amount_names: Vec::new(),
            tracked: Vec::new(),
        };
        let mut amounts = self.amounts(&mut names)?;
        let features = self.features(&mut names, &mut amounts)?;
        let mut rules = self.rules(&names, &features)?;
        for (index, suppression) in suppression::build(self.file, self.source, &self.lists)? {
            if let Some(rule) = rules.get_mut(index) {
                rule.suppressions.push(suppression);
            }
        }
        let layout = HistoryLayout::new(&features);
        let cost = ExampleCost {
            rules: rules.iter().map(|rule| rule.when.cost()).collect(),
            row: layout.parts.len() + layout.texts.len(),
        };
        let examples = example::build(self.file, self.source, &cost)?;
        Ok(Ruleset {
            version: version.into(),
            history_rows: self.history_rows()?,
            list_sizes: self.lists.sizes(),
            levels,
            layout,
            features,
            rules,
            examples,
            tracked: names.tracked,
            amounts: amounts.into_iter().map(|(currency, values)| (currency, values.into())).collect(),
        })
    }

    fn history_rows(&self) -> Result<usize, RuleFileError> {
        match &self.file.history_rows {
            None => Ok(HISTORY_ROWS_DEFAULT),
            Some(rows) if (1..=HISTORY_ROWS_MAX).contains(rows.get_ref()) => Ok(*rows.get_ref()),
            Some(rows) => Err(self.source.error(
                rows.span(),
                "history_rows",
                format!("must be between 1 and {HISTORY_ROWS_MAX}"),
            )),
        }
    }

    fn levels(&self, levels: &Spanned<LevelsIn>) -> Result<(i16, i16), RuleFileError> {
        let LevelsIn { medium, high } = *levels.get_ref();
        if 0 < medium && medium < high && high <= 100 {
            return Ok((medium, high));
        }
        Err(self.source.error(levels.span(), "levels", "must satisfy 0 < medium < high <= 100"))
    }

    /// Gives every amount an index and converts it for every currency.
    fn amounts(&self, names: &mut Names) -> Result<HashMap<Currency, Vec<i64>>, RuleFileError> {
        let scale = Scale::read(self.file.scale.as_ref(), self.source)?;
        let mut by_currency: HashMap<Currency, Vec<i64>> =
            all_currencies().map(|c| (c, Vec::new())).collect();
        for (name, texts) in &self.file.amounts {
            let field = format!("amounts.{name}");
            if names.amount_names.len() >= AMOUNTS_MAX {
                let message = format!("there are more than {AMOUNTS_MAX} amounts");
                return Err(self.source.error(texts.span(), field, message));
            }
            self.declare(names, name, Symbol::Amount(names.amount_names.len()), texts.span(), &field)?;
            names.amount_names.push(name.as_str().into());
            let Some(default) = texts.get_ref().get(DEFAULT_CURRENCY) else {
                return Err(self.source.error(texts.span(), field, "needs a `default`"));
            };
            for (currency, values) in &mut by_currency {
                let listed = texts.get_ref().get(currency.code());
                let factor = if listed.is_some() { Decimal::ONE } else { scale.factor(*currency) };
                let field = format!("{field}.{currency}");
                values.push(self.amount(listed.unwrap_or(default), factor, &field, *currency)?);
            }
            for (code, text) in texts.get_ref() {
                if code != DEFAULT_CURRENCY && Currency::parse(code).is_err() {
                    let message = format!("{code} is neither `default` nor an ISO 4217 code");
                    return Err(self.source.error(text.span(), field, message));
                }
            }
        }
        Ok(by_currency)
    }

    fn amount(
        &self,
        text: &Spanned<String>,
        factor: Decimal,
        field: &str,
        currency: Currency,
    ) -> Result<i64, RuleFileError> {
        scaled_minor_units(text.get_ref(), factor, currency.decimals())
            .map_err(|message| self.source.error(text.span(), field, message))
    }

    fn declare(
        &self,
        names: &mut Names,
        name: &str,
        symbol: Symbol,
        span: std::ops::Range<usize>,
        field: &str,
    ) -> Result<(), RuleFileError> {
        if let Err(message) = check_name(name) {
            return Err(self.source.error(span, field, message));
        }
        if names.symbols.insert(name.into(), symbol).is_some() {
            return Err(self.source.error(span, field, format!("the name {name} is already taken")));
        }
        Ok(())
    }

    fn features(
        &self,
        names: &mut Names,
        amounts: &mut HashMap<Currency, Vec<i64>>,
    ) -> Result<Vec<Feature>, RuleFileError> {
        let mut features = Vec::new();
        for (name, written) in &self.file.features {
            let field = format!("features.{name}");
            if features.len() >= FEATURES_MAX {
                let message = format!("there are more than {FEATURES_MAX} features");
                return Err(self.source.error(written.span(), field, message));
            }
            self.declare(names, name, Symbol::Feature(features.len()), written.span(), &field)?;
            features.push(self.feature(name, written, names, amounts)?);
        }
        Ok(features)
    }

    fn feature(
        &self,
        name: &str,
        written: &Spanned<FeatureIn>,
        names: &mut Names,
        amounts: &mut HashMap<Currency, Vec<i64>>,
    ) -> Result<Feature, RuleFileError> {
        let input = written.get_ref();
        let field = |part: &str| format!("features.{name}.{part}");
        let aggregate = self.aggregate(name, written, names)?;
        let last = aggregate == Aggregate::SecondsSinceLast;
        let include_event = input.include_event.as_ref().map(Spanned::get_ref);
        if let (true, Some(said)) = (last, &input.include_event) {
            let message = "does not apply: seconds_since_last counts from the row before the event";
            return Err(self.source.error(said.span(), field("include_event"), message));
        }
        let filter = &input.filter;
        let mut bound = |part: &str, text: &Option<Spanned<String>>| match text {
            None => Ok(None),
            Some(text) => self.bound(text, &field(part), names, amounts).map(Some),
        };
        Ok(Feature {
            name: name.into(),
            aggregate,
            window: self.window(name, written)?,
            include_event: !last && include_event.copied().unwrap_or(true),
            at_least: bound("filter.amount_at_least", &filter.amount_at_least)?,
            below: bound("filter.amount_below", &filter.amount_below)?,
            multiple_of: bound("filter.amount_multiple_of", &filter.amount_multiple_of)?,
            direction: match &filter.direction {
                None => None,
                Some(text) => Some(Direction::parse(text.get_ref()).map_err(|error| {
                    self.source.error(text.span(), field("filter.direction"), error.to_string())
                })?),
            },
        })
    }

    fn aggregate(
        &self,
        name: &str,
        written: &Spanned<FeatureIn>,
        names: &mut Names,
    ) -> Result<Aggregate, RuleFileError> {
        let input = written.get_ref();
        let of = input.of.as_ref().map(|of| of.get_ref().as_str());
        let wrong = |message: &str| {
            let span = input.of.as_ref().map_or_else(|| written.span(), Spanned::span);
            Err(self.source.error(span, format!("features.{name}.of"), message))
        };
        let measure = match of {
            None | Some("amount") => Some(Measure::Amount),
            Some("signed_amount") => Some(Measure::SignedAmount),
            Some(_) => None,
        };
        const MEASURES: &str = "must be amount (the default) or signed_amount";
        match (input.aggregate, measure) {
            (AggregateIn::Count, _) if of.is_none() => Ok(Aggregate::Count),
            (AggregateIn::SecondsSinceLast, _) if of.is_none() => Ok(Aggregate::SecondsSinceLast),
            (AggregateIn::Count | AggregateIn::SecondsSinceLast, _) => {
                wrong("does not apply to this aggregate")
            }
            (AggregateIn::Sum, Some(measure)) => Ok(Aggregate::Sum(measure)),
            (AggregateIn::Min, Some(measure)) => Ok(Aggregate::Min(measure)),
            (AggregateIn::Max, Some(measure)) => Ok(Aggregate::Max(measure)),
            (AggregateIn::Sum | AggregateIn::Min | AggregateIn::Max, None) => wrong(MEASURES),
            (AggregateIn::Distinct, _) => match of.map(|of| of.strip_prefix("metadata.").unwrap_or(of)) {
                Some("counterparty") if of == Some("counterparty") => {
                    Ok(Aggregate::Distinct(names.track(TrackedText::Counterparty)))
                }
                Some(entry) if of != Some(entry) && !entry.is_empty() => {
                    Ok(Aggregate::Distinct(names.track(TrackedText::Metadata(entry.into()))))
                }
                _ => wrong("must be counterparty or metadata.NAME"),
            },
        }
    }

    /// Returns the window in microseconds.
    fn window(&self, name: &str, written: &Spanned<FeatureIn>) -> Result<Option<i64>, RuleFileError> {
        let field = format!("features.{name}.window");
        let Some(text) = &written.get_ref().window else {
            return match written.get_ref().aggregate {
                AggregateIn::SecondsSinceLast => Ok(None),
                _ => Err(self.source.error(
                    written.span(),
                    field,
                    "is missing; write a duration such as 5m or 30d",
                )),
            };
        };
        let parsed = humantime::parse_duration(text.get_ref());
        let seconds = parsed.as_ref().map(std::time::Duration::as_secs).unwrap_or_default();
        match parsed.map(|width| i64::try_from(width.as_micros())) {
            Ok(Ok(micros)) if (1..=WINDOW_SECONDS_MAX).contains(&seconds) => Ok(Some(micros)),
            _ => {
                let message = "must be a duration between 1s and 10 years, such as 5m or 30d";
                Err(self.source.error(text.span(), field, message))
            }
        }
    }

    /// Returns the index of a filter's amount: the name of an amount, or a decimal that every currency can express.
    fn bound(
        &self,
        text: &Spanned<String>,
        field: &str,
        names: &mut Names,
        amounts: &mut HashMap<Currency, Vec<i64>>,
    ) -> Result<usize, RuleFileError> {
        if let Some(Symbol::Amount(at)) = names.symbols.get(text.get_ref().as_str()) {
            return Ok(*at);
        }
        if text.get_ref().starts_with(|first: char| first.is_ascii_alphabetic()) {
            let known = names.amount_names.iter().map(|known| &**known);
            let message =
                format!("there is no amount {}{}", text.get_ref(), did_you_mean(text.get_ref(), known));
            return Err(self.source.error(text.span(), field, message));
        }
        for (currency, values) in amounts.iter_mut() {
            values.push(self.amount(text, Decimal::ONE, field, *currency)?);
        }
        names.amount_names.push("".into());
        Ok(names.amount_names.len() - 1)
    }

    fn rules(&self, names: &Names, features: &[Feature]) -> Result<Vec<Rule>, RuleFileError> {
        let mut ids = BTreeSet::new();
        let mut rules = Vec::new();
        let (mut cost, mut bytes) = (0_u64, 0);
        for written in &self.file.rules {
            bytes += written.get_ref().when.get_ref().len();
            if bytes > CONDITIONS_BYTES_MAX {
                let message =
                    format!("the conditions up to here have more than {CONDITIONS_BYTES_MAX} bytes together");
                return Err(self.source.error(written.get_ref().when.span(), "rules", message));
            }
            let rule = self.rule(written.get_ref(), names, features)?;
            cost = cost.saturating_add(rule.when.cost());
            if cost > COST_MAX {
                let message = format!(
                    "the rules up to here take up to {cost} steps an event; at most {COST_MAX} are allowed"
                );
                let field = format!("rules.{}.when", rule.id);
                return Err(self.source.error(written.get_ref().when.span(), field, message));
            }
            if !ids.insert(rule.id.clone()) || rules.len() >= RULES_MAX {
                let message = format!("ids must be unique, and there may be at most {RULES_MAX} rules");
                let field = format!("rules.{}.id", rule.id);
                return Err(self.source.error(written.get_ref().id.span(), field, message));
            }
            rules.push(rule);
        }
        Ok(rules)
    }

    fn rule(&self, written: &RuleIn, names: &Names, features: &[Feature]) -> Result<Rule, RuleFileError> {
        let id = written.id.get_ref();
        let wrong = |text: &Spanned<String>, part: &str, message: String| {
            self.source.error(text.span(), format!("rules.{id}.{part}"), message)
        };
        let visible = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
        if id.is_empty() || id.len() > 64 || !id.bytes().all(visible) {
            return Err(wrong(&written.id, "id", "must be 1 to 64 of A-Z a-z 0-9 _ - .".into()));
        }
        if !(-100..=100).contains(written.score.get_ref()) {
            let field = format!("rules.{id}.score");
            return Err(self.source.error(written.score.span(), field, "must be between -100 and 100"));
        }
        let lookup = |name: &str| {
            let symbol = names.lookup(name)?;
            let unit = match symbol {
                Symbol::Feature(at) => features.get(at).map(Feature::unit),
                _ => None,
            };
            Ok((symbol, type_of(symbol, unit)))
        };
        let lookup = Lookup { name: &lookup, lists: &self.lists };
        let when = Expression::compile(written.when.get_ref(), lookup).map_err(|Fault { at, message }| {
            self.source.error_within(&written.when, at, format!("rules.{id}.when"), message)
        })?;
        if written.reason.get_ref().len() > REASON_BYTES_MAX {
            let message = format!("must have at most {REASON_BYTES_MAX} bytes");
            return Err(wrong(&written.reason, "reason", message));
        }
        let reason = Reason::parse(written.reason.get_ref(), |name| names.lookup(name))
            .map_err(|message| wrong(&written.reason, "reason", message))?;
        let mode = match written.mode {
            None | Some(ModeIn::Live) => Mode::Live,
            Some(ModeIn::Shadow) => Mode::Shadow,
            Some(ModeIn::Off) => Mode::Off,
        };
        let notes = self.notes(written)?;
        Ok(Rule {
            id: id.as_str().into(),
            when,
            score: *written.score.get_ref(),
            reason,
            mode,
            notes,
            suppressions: Vec::new(),
        })
    }

    fn notes(&self, written: &RuleIn) -> Result<RuleNotes, RuleFileError> {
        let id = written.id.get_ref();
        let text = |text: &Spanned<String>, part: &str, length_max| {
            bounded_text(text.get_ref(), length_max)
                .map(String::from)
                .map_err(|error| self.source.error(text.span(), format!("rules.{id}.{part}"), error.0))
        };
        let mut tags = Vec::new();
        if let Some(written) = &written.tags {
            if written.get_ref().len() > TAGS_MAX {
                let message = format!("may be at most {TAGS_MAX}");
                return Err(self.source.error(written.span(), format!("rules.{id}.tags"), message));
            }
            for tag in written.get_ref() {
                tags.push(text(tag, "tags", TAG_LENGTH_MAX)?);
            }
        }
        let note = |note: &Option<Spanned<String>>, part: &str| {
            note.as_ref().map(|note| text(note, part, NOTE_LENGTH_MAX)).transpose()
        };
        let (description, source) =
            (note(&written.description, "description")?, note(&written.source, "source")?);
        Ok(RuleNotes { tags, description, source })
    }
}

impl Names {
    fn track(&mut self, text: TrackedText) -> usize {
        self.tracked.iter().position(|known| *known == text).unwrap_or_else(|| {
            self.tracked.push(text);
            self.tracked.len() - 1
        })
    }
}

fn all_currencies() -> impl Iterator<Item = Currency> {
    CURRENCIES.iter().filter_map(|(code, _)| Currency::parse(code).ok())
}
