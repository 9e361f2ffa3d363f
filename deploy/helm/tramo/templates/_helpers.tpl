{{- define "tramo.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* At most 50 characters: with the longest suffix, a name is still a label. */}}
{{- define "tramo.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" }}
{{- else if contains (include "tramo.name" .) .Release.Name }}
{{- .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "tramo.name" .) | trunc 50 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{/* The functions below take (list . "server"): the root, and the component. */}}

{{- define "tramo.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ include "tramo.name" $root }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{- define "tramo.labels" -}}
{{- $root := index . 0 -}}
{{ include "tramo.selector" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" }}
{{- with $root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "tramo.metadata" -}}
{{- $root := index . 0 -}}
name: {{ include "tramo.fullname" $root }}-{{ index . 1 }}
namespace: {{ $root.Release.Namespace }}
labels:
  {{- include "tramo.labels" . | nindent 2 }}
{{- end }}

{{- define "tramo.image" -}}
{{- $image := index . 1 -}}
{{- if $image.digest -}}
{{ $image.repository }}@{{ $image.digest }}
{{- else -}}
{{ $image.repository }}:{{ default (index . 0).Chart.AppVersion $image.tag }}
{{- end }}
{{- end }}

{{- define "tramo.serviceAccount" -}}
{{- $root := index . 0 -}}
{{- $account := (index $root.Values (index . 1)).serviceAccount -}}
{{- if $account.create -}}
{{ default (printf "%s-%s" (include "tramo.fullname" $root) (index . 1)) $account.name }}
{{- else -}}
{{ default "default" $account.name }}
{{- end }}
{{- end }}

{{- define "tramo.secret" -}}
{{- $root := index . 0 -}}
{{ default (printf "%s-%s" (include "tramo.fullname" $root) (index . 1)) (index $root.Values.secrets (index . 1)).name }}
{{- end }}

{{/* A size such as 4Gi as Tramo writes it (4GiB), and as the limit of a volume: an eighth more, since Kubernetes evicts a
pod whose volume exceeds its limit. */}}
{{- define "tramo.volumeLimit" -}}
{{- $mebibytes := int64 (regexFind "^[0-9]+" .) -}}
{{- if hasSuffix "Gi" . }}{{ $mebibytes = mul $mebibytes 1024 }}{{ end -}}
{{ div (mul $mebibytes 9) 8 }}Mi
{{- end }}

{{/* Variables from a map. Helm reads numbers as floating-point: 10000000 must not become 1e+07. */}}
{{- define "tramo.settings" -}}
{{- range $name, $value := . }}
- name: {{ $name }}
  value: {{ if kindIs "float64" $value }}{{ int64 $value | quote }}{{ else }}{{ $value | quote }}{{ end }}
{{- end }}
{{- end }}

{{/* The names of the files of secrets. A setting that is a file itself keeps its name. */}}
{{- define "tramo.secretEnv" -}}
{{- range $name, $key := (index (index . 0).Values.secrets (index . 1)).keys }}
{{- if $key }}
- name: {{ $name | trimSuffix "_FILE" }}_FILE
  value: /run/secrets/tramo/{{ $key }}
{{- end }}
{{- end }}
{{- end }}

{{- define "tramo.secretVolume" -}}
- name: secrets
  secret:
    secretName: {{ include "tramo.secret" . }}
    defaultMode: 0440
    items:
      {{- range $name, $key := (index (index . 0).Values.secrets (index . 1)).keys }}
      {{- if $key }}
      - {key: {{ $key }}, path: {{ $key }}}
      {{- end }}
      {{- end }}
{{- end }}

{{- define "tramo.s3Env" -}}
{{- with .Values.s3 -}}
- name: TRAMO_S3_BUCKET
  value: {{ .bucket | quote }}
- name: AWS_REGION
  value: {{ .region | quote }}
{{- if .endpoint }}
- name: TRAMO_S3_ENDPOINT
  value: {{ .endpoint | quote }}
{{- end }}
{{- if .credentialsSecret }}
{{- range list "AWS_ACCESS_KEY_ID" "AWS_SECRET_ACCESS_KEY" }}
- name: {{ . }}
  valueFrom:
    secretKeyRef: {name: {{ $.Values.s3.credentialsSecret }}, key: {{ . }}}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* What pod security "restricted" asks of a pod and of a container. */}}
{{- define "tramo.podSecurity" -}}
runAsNonRoot: true
runAsUser: {{ index . 0 }}
runAsGroup: {{ index . 1 }}
fsGroup: {{ index . 1 }}
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "tramo.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* Where pods may run. */}}
{{- define "tramo.scheduling" -}}
{{- $values := index (index . 0).Values (index . 1) -}}
{{- with $values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with $values.topologySpread }}
topologySpreadConstraints:
  - topologyKey: topology.kubernetes.io/zone
    whenUnsatisfiable: {{ .zone }}
    {{- include "tramo.spread" $ | nindent 4 }}
  - topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: {{ .host }}
    {{- include "tramo.spread" $ | nindent 4 }}
{{- end }}
{{- end }}

{{- define "tramo.spread" -}}
maxSkew: 1
matchLabelKeys: [pod-template-hash]
labelSelector:
  matchLabels:
    {{- include "tramo.selector" . | nindent 4 }}
{{- end }}

{{- define "tramo.podLabels" -}}
{{- $values := index (index . 0).Values (index . 1) -}}
{{ include "tramo.labels" . }}
{{- with $values.podLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "tramo.pullSecrets" -}}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
