{{- /*
What neither the schema, nor the API server, nor a program at its start can say: one problem a line, with the value, what is
wrong with it, and what to do. All are told at once.
*/}}
{{- define "drx-bridge.problems" -}}
{{- $spool := .Values.ingress.spool }}
{{- if not .Values.image.repository }}
image.repository: is not set; name the repository that the image was pushed to
{{- end }}
{{- if not (or .Values.image.digest .Values.image.tag) }}
image.digest: is not set, and there is no tag; name the image by digest, sha256:…, so that what runs is what was tested, or by image.tag
{{- end }}
{{- if contains "@" (default "" .Values.registry.url) }}
registry.url: a secret has no place in values, which are kept with the release; name a Secret with the keys username and password in ingress.registry.credentialsSecret and consumers.<name>.registry.credentialsSecret
{{- end }}
{{ include "drx-bridge.alertProblems" . }}
{{ include "drx-bridge.userProblems" . }}
{{- if .Values.ingress.enabled }}
{{- if and (or $spool.enabled $spool.drainClaims) (not $spool.keySecret) }}
ingress.spool.keySecret: is not set; name a Secret whose key current is spk_ and the base64 of 32 random bytes, or set ingress.spool.enabled to false and leave ingress.spool.drainClaims empty
{{- end }}
{{- if $spool.enabled }}
{{ include "drx-bridge.volumeProblems" . }}
{{- end }}
{{ include "drx-bridge.exposureProblems" .Values.ingress }}
{{ include "drx-bridge.memoryProblems" .Values.ingress }}
{{- end }}
{{- range $key, $consumer := include "drx-bridge.consumers" . | fromJson }}
{{- with $consumer.image }}
{{- if and .repository (not (or .digest .tag)) }}
consumers.{{ $key }}.image.digest: is not set, and there is no tag; name the image by digest, sha256:…, or by consumers.{{ $key }}.image.tag
{{- else if and (or .digest .tag) (not .repository) }}
consumers.{{ $key }}.image.repository: is not set, and a tag or a digest means nothing without it; name the repository
{{- end }}
{{- end }}
{{- if not $consumer.postgres.existingSecret }}
consumers.{{ $key }}.postgres.existingSecret: is not set; name the Secret whose key {{ $consumer.postgres.secretKey }} is postgresql://user:password@host:port/database, or set consumers.{{ $key }}.enabled to false
{{- end }}
{{- if and $consumer.hpa.enabled $consumer.keda.enabled }}
consumers.{{ $key }}.keda.enabled: KEDA makes an HPA of its own and the two would fight; set one of consumers.{{ $key }}.hpa.enabled and consumers.{{ $key }}.keda.enabled to false
{{- end }}
{{- if and $consumer.keda.enabled (ne $.Values.kafka.securityProtocol "PLAINTEXT") (include "drx-bridge.strimziUser" (list $ $consumer)) }}
consumers.{{ $key }}.keda.enabled: KEDA needs a login whose keys are named as in consumers.{{ $key }}.kafka, and the Secret of a user of Strimzi has others; set consumers.{{ $key }}.kafka.credentialsSecret or clientCertificateSecret, or consumers.{{ $key }}.keda.enabled to false
{{- end }}
{{- if and $consumer.keda.enabled $.Values.kafka.tokenProvider }}
consumers.{{ $key }}.keda.enabled: KEDA cannot use kafka.tokenProvider; set consumers.{{ $key }}.keda.enabled to false
{{- end }}
{{- end }}
{{- end -}}

{{- /* A misspelt alert would stay unchanged. */}}
{{- define "drx-bridge.alertProblems" -}}
{{- with .Values.monitoring.alerts }}
{{- $names := dict }}
{{- range (include "drx-bridge.rules" $ | fromYaml).groups }}
{{- range .rules }}
{{- $_ := set $names (default "" .alert) true }}
{{- end }}
{{- end }}
{{- range $name, $_ := . }}
{{- if not (hasKey $names $name) }}
monitoring.alerts.{{ $name }}: there is no such alert; name one of {{ keys $names | compact | sortAlpha | join ", " }}
{{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{- /* Pods would wait indefinitely for the Secret of a user that is not created, or elsewhere or later. */}}
{{- define "drx-bridge.userProblems" -}}
{{- $strimzi := .Values.strimzi }}
{{- if and $strimzi.cluster $strimzi.users (ne (default .Release.Namespace $strimzi.namespace) .Release.Namespace) }}
strimzi.users: the Secrets of its users would be in {{ $strimzi.namespace }}, and pods mount those of their own namespace; install into that one, or set strimzi.users to false and copy Secrets
{{- end }}
{{- $logins := list .Values.topicsJob.credentialsSecret .Values.topicsJob.clientCertificateSecret .Values.ingress.kafka.credentialsSecret .Values.ingress.kafka.clientCertificateSecret }}
{{- if and .Values.topicsJob.enabled $strimzi.cluster $strimzi.users (not (compact $logins)) }}
topicsJob.credentialsSecret: is not set, and users of Strimzi come after the Job; name the Secret of a user who may create topics here or in topicsJob.clientCertificateSecret, or set topicsJob.enabled to false
{{- end }}
{{- end -}}

{{- define "drx-bridge.volumeProblems" -}}
{{- $spool := .Values.ingress.spool }}
{{- range $number := until (int .Values.ingress.replicas) }}
{{- $claim := printf "data-%s-%d" (include "drx-bridge.name" (list $ "ingress")) $number }}
{{- if has $claim $spool.drainClaims }}
ingress.spool.drainClaims: {{ $claim }} is of a pod that runs and drains it by itself; lower ingress.replicas, or take it out
{{- end }}
{{- end }}
{{- if gt (mulf $spool.capacityBytes 1.25) (mulf $spool.volume.sizeGi 1073741824) }}
ingress.spool.volume.sizeGi: {{ include "drx-bridge.number" $spool.volume.sizeGi }} Gi do not hold ingress.spool.capacityBytes and a fifth to spare; enlarge the volume, of a release that runs as README.md says under Volumes of the spool, or lower the capacity
{{- end }}
{{- if .Values.ingress.hpa.enabled }}
ingress.hpa.enabled: not with the spool, since a removed pod would strand its events; set ingress.replicas, or disable the spool first as README.md says under Volumes of the spool
{{- end }}
{{- end -}}

{{- define "drx-bridge.exposureProblems" -}}
{{- if and (ne .service.type "ClusterIP") (not .http.tlsInFront) }}
ingress.service.type: {{ .service.type }} shows a port without TLS to the outside, and deliveries carry health information; have the balancer end TLS and set ingress.http.tlsInFront to true, or use ingress.httpRoute or ingress.kubernetesIngress
{{- end }}
{{- if and .kubernetesIngress.enabled (not (and .kubernetesIngress.host .kubernetesIngress.tlsSecret)) }}
ingress.kubernetesIngress: needs host and tlsSecret; deliveries carry health information and come by HTTPS only
{{- end }}
{{- end -}}

{{- /*
What the ingress fills by its settings: 41 bytes an id at most (33 in arrays, and a table of the next power of two), 32
KiB a connection, 26 bytes for each spooled event of 1,148 (24 in arrays that grow by a sixteenth), and 224 MiB: 64 of
bodies in hand, 32 of those that are not whole, and the process itself, 119 when it was measured under load.
*/}}
{{- define "drx-bridge.memoryProblems" -}}
{{- with dig "limits" "memory" "" .resources }}
{{- $spool := ternary (divf (mulf $.spool.capacityBytes 26) 1148) 0.0 $.spool.enabled }}
{{- $needed := addf (mulf $.dedupe.capacity 41) (mulf $.http.connectionsMax 32768) $spool 234881024 }}
{{- if gt $needed (include "drx-bridge.bytes" (toString .) | float64) }}
ingress.resources.limits.memory: {{ . }} do not hold the process, ingress.dedupe.capacity ids, ingress.http.connectionsMax connections, and the index of ingress.spool.capacityBytes, at least {{ divf $needed 1048576 | ceil }}Mi together; raise it, or lower one of these
{{- end }}
{{- end }}
{{- end -}}
