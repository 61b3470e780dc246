{{- /*
The pod of a role. Arguments: root (the chart's context), role (its name), args (of the binary), values (of the
role), keepsRunning (it has an admin listener and is probed), isHook (it runs before the chart's objects exist).
*/ -}}
{{- define "ledger.podSpec" -}}
{{- $values := .root.Values -}}
{{- $hasConfig := not .isHook -}}
{{- if .isHook -}}
# Before the first install the chart's service account does not exist.
serviceAccountName: {{ if $values.serviceAccount.create }}default{{ else }}{{ include "ledger.serviceAccountName" .root }}{{ end }}
{{- else -}}
serviceAccountName: {{ include "ledger.serviceAccountName" .root }}
{{- end }}
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
containers:
  - name: {{ .role }}
    image: {{ include "ledger.image" .root }}
    imagePullPolicy: {{ $values.image.pullPolicy }}
    args: {{ toJson .args }}
    env: {{- include "ledger.env" . | nindent 6 }}
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
    resources: {{- toYaml .values.resources | nindent 6 }}
    securityContext:
      allowPrivilegeEscalation: false
      readOnlyRootFilesystem: true
      capabilities: {drop: [ALL]}
    volumeMounts:
      - {name: tmp, mountPath: /tmp}
      {{- if $hasConfig }}
      - {name: config, mountPath: /etc/ledger/config, readOnly: true}
      {{- end }}
      {{- if $values.database.caConfigMap }}
      - {name: database-ca, mountPath: /etc/ledger/database-ca, readOnly: true}
      {{- end }}
      {{- if and (eq $values.broker.kind "kafka") $values.broker.kafka.caConfigMap (not .isHook) }}
      - {name: kafka-ca, mountPath: /etc/ledger/kafka-ca, readOnly: true}
      {{- end }}
volumes:
  - name: tmp
    emptyDir: {sizeLimit: 64Mi}
  {{- if $hasConfig }}
  # Mount a folder: changes of single mounted files do not reach a running pod.
  - name: config
    configMap: {name: {{ include "ledger.fullname" .root }}}
  {{- end }}
  {{- with $values.database.caConfigMap }}
  - name: database-ca
    configMap: {name: {{ . }}}
  {{- end }}
  {{- if and (eq $values.broker.kind "kafka") $values.broker.kafka.caConfigMap (not .isHook) }}
  - name: kafka-ca
    configMap: {name: {{ $values.broker.kafka.caConfigMap }}}
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
{{- if not .isHook }}
- name: LEDGER_CONFIG
  value: /etc/ledger/config/ledger.toml
{{- if $values.rules }}
- name: LEDGER_RISK__RULES
  value: /etc/ledger/config/rules.toml
{{- end }}
- name: LEDGER_SERVE__LISTEN
  value: 0.0.0.0:8080
- name: LEDGER_ADMIN__LISTEN
  value: {{ ternary "0.0.0.0:9090" "off" .keepsRunning | quote }}
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
