{{- /*
The pod of a role. Arguments: root (the chart's context), role (its name), args (of the binary), values (of the
role), keepsRunning (it has an admin listener and is probed), isHook (it runs before the chart's objects exist, and checks
the configuration and the rules first).
*/ -}}
{{- define "ledger.podSpec" -}}
{{- $values := .root.Values -}}
{{- $configMap := include "ledger.fullname" .root -}}
{{- $serviceAccount := include "ledger.serviceAccountName" .root -}}
{{- if .isHook -}}
{{- /* Hooks of their own: the other objects do not exist yet, or belong to the last release. */ -}}
{{- $configMap = printf "%s-next" $configMap -}}
{{- if $values.serviceAccount.create -}}
{{- $serviceAccount = printf "%s-migrate" (include "ledger.fullname" .root) -}}
{{- end -}}
{{- end -}}
serviceAccountName: {{ $serviceAccount }}
automountServiceAccountToken: false
# Service links would set variables that begin with LEDGER_, and unknown ones stop the start.
enableServiceLinks: false
{{- with $values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  seccompProfile: {type: RuntimeDefault}
{{- if .keepsRunning }}
# The role stops within 5 s of SIGTERM. The pre-stop wait of serve is included.
terminationGracePeriodSeconds: 30
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "ledger.selector" .root | nindent 8 }}
        app.kubernetes.io/component: {{ .role }}
{{- else }}
restartPolicy: Never
{{- end }}
{{- if or .isHook .values.initContainers }}
initContainers:
  {{- with .values.initContainers }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
  {{- if .isHook }}
  - name: check-config
    args: [config, check]
    {{- include "ledger.container" . | nindent 4 }}
  {{- if $values.rules }}
  - name: check-rules
    args: [risk, check, /etc/ledger/config/rules.toml]
    {{- include "ledger.container" . | nindent 4 }}
  {{- end }}
  {{- end }}
{{- end }}
containers:
  - name: {{ .role }}
    args: {{ toJson .args }}
    {{- include "ledger.container" . | nindent 4 }}
    {{- if and (eq .role "serve") .values.preStopSeconds (semverCompare ">=1.30-0" .root.Capabilities.KubeVersion.Version) }}
    # serve stops accepting at once, but the cluster needs a moment to stop sending. The image has no shell, so Kubernetes waits.
    lifecycle:
      preStop:
        sleep: {seconds: {{ .values.preStopSeconds }}}
    {{- end }}
    {{- if .keepsRunning }}
    ports:
      {{- if eq .role "serve" }}
      - {name: http, containerPort: 8080}
      {{- end }}
      - {name: admin, containerPort: 9090}
    startupProbe:
      httpGet: {path: /livez, port: admin}
      periodSeconds: 1
      failureThreshold: 60
    livenessProbe:
      httpGet: {path: /livez, port: admin}
      periodSeconds: 10
      timeoutSeconds: 3
      failureThreshold: 3
    readinessProbe:
      httpGet: {path: /readyz, port: admin}
      periodSeconds: 5
      timeoutSeconds: 3
      failureThreshold: 2
    {{- end }}
  {{- with .values.extraContainers }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
volumes:
  - name: tmp
    emptyDir: {sizeLimit: 64Mi}
  # Mount a folder: changes of single mounted files do not reach a running pod.
  - name: config
    configMap: {name: {{ $configMap }}}
  {{- with $values.database.caConfigMap }}
  - name: database-ca
    configMap: {name: {{ . }}}
  {{- end }}
  {{- if and (eq $values.broker.kind "kafka") $values.broker.kafka.caConfigMap }}
  - name: kafka-ca
    configMap: {name: {{ $values.broker.kafka.caConfigMap }}}
  {{- end }}
  {{- with .values.extraVolumes }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with .values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- /* What every container of the binary has. */ -}}
{{- define "ledger.container" -}}
{{- $values := .root.Values -}}
image: {{ include "ledger.image" .root }}
imagePullPolicy: {{ $values.image.pullPolicy }}
env: {{- include "ledger.env" . | nindent 2 }}
resources: {{- toYaml .values.resources | nindent 2 }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
volumeMounts:
  - {name: tmp, mountPath: /tmp}
  - {name: config, mountPath: /etc/ledger/config, readOnly: true}
  {{- if $values.database.caConfigMap }}
  - {name: database-ca, mountPath: /etc/ledger/database-ca, readOnly: true}
  {{- end }}
  {{- if and (eq $values.broker.kind "kafka") $values.broker.kafka.caConfigMap }}
  - {name: kafka-ca, mountPath: /etc/ledger/kafka-ca, readOnly: true}
  {{- end }}
  {{- with .values.extraVolumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{- define "ledger.env" -}}
{{- $values := .root.Values -}}
{{- $secret := $values.database.existingSecret -}}
{{- $key := $values.database.key -}}
{{- if and (eq .role "migrate") $values.database.migrate.existingSecret -}}
{{- $secret = $values.database.migrate.existingSecret -}}
{{- $key = $values.database.migrate.key -}}
{{- end -}}
- name: LEDGER_DATABASE__URL
  valueFrom:
    secretKeyRef: {name: {{ $secret }}, key: {{ $key }}}
{{- with $values.database.caConfigMap }}
- name: LEDGER_DATABASE__TLS_CA_FILE
  value: /etc/ledger/database-ca/{{ $values.database.caKey }}
{{- end }}
- name: LEDGER_CONFIG
  value: /etc/ledger/config/ledger.toml
{{- if $values.rules }}
- name: LEDGER_RISK__RULES
  value: /etc/ledger/config/rules.toml
{{- end }}
- name: LEDGER_SERVE__LISTEN
  value: {{ printf "%s:8080" $values.listenAddress | quote }}
- name: LEDGER_ADMIN__LISTEN
  value: {{ ternary (printf "%s:9090" $values.listenAddress) "off" .keepsRunning | quote }}
- name: LEDGER_BROKER__KIND
  value: {{ $values.broker.kind }}
{{- if eq $values.broker.kind "kafka" }}
{{- with $values.broker.kafka }}
- name: LEDGER_BROKER__KAFKA__BOOTSTRAP_SERVERS
  value: {{ .bootstrapServers | quote }}
{{- if .tls }}
- name: LEDGER_BROKER__KAFKA__TLS
  value: "true"
{{- end }}
{{- if .caConfigMap }}
- name: LEDGER_BROKER__KAFKA__TLS_CA_FILE
  value: /etc/ledger/kafka-ca/{{ .caKey }}
{{- end }}
{{- if .saslMechanism }}
- name: LEDGER_BROKER__KAFKA__SASL_MECHANISM
  value: {{ .saslMechanism }}
- name: LEDGER_BROKER__KAFKA__SASL_USERNAME
  value: {{ .saslUsername | quote }}
- name: LEDGER_BROKER__KAFKA__SASL_PASSWORD
  valueFrom:
    secretKeyRef: {name: {{ required "broker.kafka.existingSecret: saslMechanism needs a Secret with the password" .existingSecret }}, key: {{ .key }}}
{{- end }}
{{- end }}
{{- end }}
{{- with $values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "ledger.migrateArgs" -}}
{{- with .Values.database.migrate.grants -}}
{{- list "migrate" "--grants" . | toJson -}}
{{- else -}}
{{- list "migrate" | toJson -}}
{{- end -}}
{{- end -}}
