{{- /* 36 characters leave space for the longest suffix and the hash that a StatefulSet adds: 63 in all. */}}
{{- define "drx-bridge.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 36 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 36 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 36 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- /* Name of a component: (list $ "read_model"). */}}
{{- define "drx-bridge.name" -}}
{{- printf "%s-%s" (include "drx-bridge.fullname" (index . 0)) (index . 1 | replace "_" "-") -}}
{{- end -}}

{{- /* Labels that never change in a release: (list $ "ingress"), or (list $ "") for all its pods. */}}
{{- define "drx-bridge.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ default $root.Chart.Name $root.Values.nameOverride | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
{{- with index . 1 }}
app.kubernetes.io/component: {{ replace "_" "-" . }}
{{- end }}
{{- end -}}

{{- define "drx-bridge.labels" -}}
{{ include "drx-bridge.ownLabels" . }}
{{- with (index . 0).Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "drx-bridge.ownLabels" -}}
{{- $root := index . 0 -}}
{{ include "drx-bridge.selector" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
app.kubernetes.io/part-of: drx-bridge
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" }}
{{- end -}}

{{- /* "true" for a source that accepts deliveries of `helm test` and `simulate`: native DRx with Standard Webhooks. */}}
{{- define "drx-bridge.isNative" -}}
{{- if and (eq .profile "drx_standard") (eq (default "standard_webhooks" .scheme) "standard_webhooks") -}}
true
{{- end -}}
{{- end -}}

{{- /* The source of `helm test`; empty if no source accepts its delivery. */}}
{{- define "drx-bridge.testSource" -}}
{{- $found := default "" .Values.heartbeatTest.source -}}
{{- range $name, $source := .Values.ingress.sources -}}
{{- if and (not $found) (include "drx-bridge.isNative" $source) -}}
{{- $found = $name -}}
{{- end -}}
{{- end -}}
{{ $found }}
{{- end -}}

{{- /* "true" when a kind of the Prometheus operator is wanted: (list $ "auto" "PodMonitor"). */}}
{{- define "drx-bridge.wanted" -}}
{{- $root := index . 0 -}}
{{- $wish := index . 1 -}}
{{- $api := printf "monitoring.coreos.com/v1/%s" (index . 2) -}}
{{- if or (eq $wish "always") (eq $wish (index . 2)) (and (eq $wish "auto") (has (index . 2) (list "PodMonitor" "PrometheusRule")) ($root.Capabilities.APIVersions.Has $api)) -}}
true
{{- end -}}
{{- end -}}

{{- /* Numbers are floating point; an integer must not become 1e+06. */}}
{{- define "drx-bridge.number" -}}
{{- if eq (float64 (int64 .)) (float64 .) -}}{{ int64 . }}{{- else -}}{{ printf "%g" (float64 .) }}{{- end -}}
{{- end -}}

{{- /* A quantity of Kubernetes, such as 768Mi, as a number. */}}
{{- define "drx-bridge.bytes" -}}
{{- $units := dict "" 1 "m" 0.001 "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 -}}
{{- mulf (regexFind "^[0-9.]+" .) (get $units (regexFind "[a-zA-Z]*$" .)) -}}
{{- end -}}
