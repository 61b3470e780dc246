{{- /* The Deployment of a role that keeps running. Arguments: root, role, values, scalesItself. */ -}}
{{- define "ledger.deployment" -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ include "ledger.fullname" .root }}-{{ .role }}
  labels:
    {{- include "ledger.labels" .root | nindent 4 }}
    app.kubernetes.io/component: {{ .role }}
spec:
  {{- if not .scalesItself }}
  replicas: {{ .values.replicas }}
  {{- else }}
  {{- /* Keep what runs: when a manifest no longer has `replicas`, Kubernetes scales to 1 until the autoscaler acts. */}}
  {{- with lookup "apps/v1" "Deployment" .root.Release.Namespace (printf "%s-%s" (include "ledger.fullname" .root) .role) }}
  replicas: {{ .spec.replicas }}
  {{- end }}
  {{- end }}
  strategy:
    type: RollingUpdate
    rollingUpdate: {maxSurge: 1, maxUnavailable: 0}
  selector:
    matchLabels:
      {{- include "ledger.selector" .root | nindent 6 }}
      app.kubernetes.io/component: {{ .role }}
  template:
    metadata:
      labels:
        {{- include "ledger.labels" .root | nindent 8 }}
        app.kubernetes.io/component: {{ .role }}
      annotations:
        # A changed configuration starts new pods. Changed rules are reloaded by running pods.
        checksum/config: {{ .root.Values.config | sha256sum }}
        prometheus.io/scrape: "true"
        prometheus.io/port: "9090"
        prometheus.io/path: /metrics
        {{- with .values.podAnnotations }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
    spec: {{- include "ledger.podSpec" (dict "root" .root "role" .role "args" (list .role) "values" .values "keepsRunning" true "isHook" false) | nindent 6 }}
{{- if .values.podDisruptionBudget.enabled }}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ include "ledger.fullname" .root }}-{{ .role }}
  labels:
    {{- include "ledger.labels" .root | nindent 4 }}
    app.kubernetes.io/component: {{ .role }}
spec:
  maxUnavailable: {{ .values.podDisruptionBudget.maxUnavailable }}
  # A pod that is not ready must not block the drain of its node.
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels:
      {{- include "ledger.selector" .root | nindent 6 }}
      app.kubernetes.io/component: {{ .role }}
{{- end }}
{{- end -}}
