{{/* The labels by which the operator's pods are found; never changed, because selectors can't be. */}}
{{- define "easel.selector" -}}
app.kubernetes.io/name: easel-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* Every pod that is part of easel runs a gateway: by this label the leader finds them. */}}
{{- define "easel.labels" -}}
{{ include "easel.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: easel
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "easel.url" -}}
{{- .Values.gateway.url | default (printf "http://easel-gateway.%s.svc" .Release.Namespace) -}}
{{- end }}

{{/* Pod Security "restricted", for every pod of this chart. */}}
{{- define "easel.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "easel.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}
