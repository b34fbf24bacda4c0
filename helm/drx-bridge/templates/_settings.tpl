{{- /* Variables common to ingress and consumers: (list $ "BRIDGE" $component). */}}
{{- define "drx-bridge.commonSettings" -}}
{{- $root := index . 0 -}}
{{- $prefix := index . 1 -}}
{{- $component := index . 2 -}}
{{- $kafka := $root.Values.kafka -}}
{{ $prefix }}_ACCEPT: {{ join "," $root.Values.accept | quote }}
{{ $prefix }}_KAFKA__BOOTSTRAP_SERVERS: {{ $kafka.bootstrapServers | quote }}
{{ $prefix }}_KAFKA__SECURITY_PROTOCOL: {{ $kafka.securityProtocol | quote }}
{{- if hasPrefix "SASL" $kafka.securityProtocol }}
{{ $prefix }}_KAFKA__SASL_MECHANISM: {{ $kafka.saslMechanism | quote }}
{{- if $kafka.tokenProvider }}
{{ $prefix }}_KAFKA__SASL_TOKEN_PROVIDER: {{ $kafka.tokenProvider | quote }}
{{- else }}
{{ $prefix }}_KAFKA__SASL_USERNAME_FILE: /etc/drx-bridge/kafka/username
{{ $prefix }}_KAFKA__SASL_PASSWORD_FILE: /etc/drx-bridge/kafka/password
{{- end }}
{{- with $kafka.tokenUrl }}
{{ $prefix }}_KAFKA__SASL_TOKEN_URL: {{ . | quote }}
{{- end }}
{{- with $kafka.tokenScope }}
{{ $prefix }}_KAFKA__SASL_TOKEN_SCOPE: {{ . | quote }}
{{- end }}
{{- end }}
{{- if $kafka.caSecret }}
{{ $prefix }}_KAFKA__SSL_CAFILE: /etc/drx-bridge/kafka-ca/ca.crt
{{- end }}
{{- if or $component.kafka.clientCertificateSecret (and (eq $kafka.securityProtocol "SSL") (include "drx-bridge.strimziUser" (list $root $component))) }}
{{ $prefix }}_KAFKA__SSL_CERTFILE: /etc/drx-bridge/kafka-client/tls.crt
{{ $prefix }}_KAFKA__SSL_KEYFILE: /etc/drx-bridge/kafka-client/tls.key
{{- end }}
{{- if $root.Values.registry.url }}
{{ $prefix }}_REGISTRY__URL: {{ $root.Values.registry.url | quote }}
{{- end }}
{{- if $component.registry.credentialsSecret }}
{{ $prefix }}_REGISTRY__USERNAME_FILE: /etc/drx-bridge/registry/username
{{ $prefix }}_REGISTRY__PASSWORD_FILE: /etc/drx-bridge/registry/password
{{- end }}
{{ $prefix }}_LOG__LEVEL: {{ $component.log.level | quote }}
{{- if $root.Values.logIds.keySecret }}
{{ $prefix }}_LOG__ID_KEY_DIR: /etc/drx-bridge/log-ids
{{- end }}
{{- end -}}

{{- /* Settings of the topics, for the Job that creates them and the processes that write to them. */}}
{{- define "drx-bridge.topicSettings" -}}
BRIDGE_KAFKA__PARTITIONS: {{ include "drx-bridge.number" .Values.kafka.partitions | quote }}
BRIDGE_KAFKA__MESSAGE_MAX_BYTES: {{ include "drx-bridge.number" .Values.kafka.messageMaxBytes | quote }}
{{- with .Values.kafka.routes }}
BRIDGE_KAFKA__ROUTES: {{ toJson . | quote }}
{{- end }}
{{- end -}}

{{- define "drx-bridge.ingressSettings" -}}
{{- $ingress := .Values.ingress -}}
{{ include "drx-bridge.commonSettings" (list . "BRIDGE" $ingress) }}
BRIDGE_HTTP__PORT: "8080"
BRIDGE_HTTP__BODY_MAX_BYTES: {{ include "drx-bridge.number" $ingress.http.bodyMaxBytes | quote }}
BRIDGE_HTTP__DEADLINE_S: {{ include "drx-bridge.number" $ingress.http.deadlineS | quote }}
BRIDGE_HTTP__CONNECTIONS_MAX: {{ include "drx-bridge.number" $ingress.http.connectionsMax | quote }}
BRIDGE_HTTP__TLS_IN_FRONT: {{ $ingress.http.tlsInFront | quote }}
{{- with $ingress.http.addressRatePerS }}
BRIDGE_HTTP__ADDRESS_RATE_PER_S: {{ include "drx-bridge.number" . | quote }}
{{- end }}
{{- with $ingress.http.trustedProxies }}
BRIDGE_HTTP__TRUSTED_PROXIES: {{ . | quote }}
{{- end }}
BRIDGE_HTTP__INFLIGHT_MAX: {{ include "drx-bridge.number" $ingress.http.inflightMax | quote }}
BRIDGE_MANAGEMENT__PORT: "9090"
{{ include "drx-bridge.topicSettings" . }}
{{- if .Values.registry.url }}
BRIDGE_REGISTRY__IDS_FILE: /var/lib/drx-bridge/registry-ids.json
{{- end }}
BRIDGE_SPOOL__ENABLED: {{ $ingress.spool.enabled | quote }}
{{- if $ingress.spool.enabled }}
BRIDGE_SPOOL__DIR: /var/lib/drx-bridge/spool
BRIDGE_SPOOL__KEY_DIR: /etc/drx-bridge/spool-keys
BRIDGE_SPOOL__CAPACITY_BYTES: {{ include "drx-bridge.number" $ingress.spool.capacityBytes | quote }}
{{- end }}
BRIDGE_DEDUPE__CAPACITY: {{ include "drx-bridge.number" $ingress.dedupe.capacity | quote }}
BRIDGE_HEARTBEAT__ENABLED: {{ $ingress.heartbeat.enabled | quote }}
{{- /* The preStop sleep is part of the pod's grace period, before the process gets SIGTERM. */}}
BRIDGE_SHUTDOWN__GRACE_S: {{ include "drx-bridge.number" (subf $ingress.shutdown.graceS $ingress.preStopSleepS) | quote }}
{{- range $name, $source := $ingress.sources }}
{{- $variable := printf "BRIDGE_SOURCES__%s" (upper $name) }}
{{ $variable }}__PROFILE: {{ $source.profile | quote }}
{{ $variable }}__ENVIRONMENT: {{ $source.environment | quote }}
{{- if $source.schemeJwksUrl }}
{{ $variable }}__SECRETS_DIR: /var/lib/drx-bridge/keys/{{ $name }}
{{- else if $source.existingSecret }}
{{ $variable }}__SECRETS_DIR: /etc/drx-bridge/sources/{{ $name }}
{{- end }}
{{- range $key, $value := $source }}
{{- if or (hasPrefix "scheme" $key) (hasPrefix "challenge" $key) (eq $key "body") }}
{{ $variable }}__{{ $key | snakecase | upper }}: {{ $value | quote }}
{{- end }}
{{- end }}
{{- with $source.ignore }}
{{ $variable }}__IGNORE: {{ join "," . | quote }}
{{- end }}
{{- with $source.answer200 }}
{{ $variable }}__ANSWER_200: {{ . | quote }}
{{- end }}
{{- $options := deepCopy (default dict $source.options) }}
{{- if $source.mappingConfigMap }}
{{- $_ := set $options "mapping" (printf "/etc/drx-bridge/mappings/%s/mapping.toml" $name) }}
{{- end }}
{{- with $options }}
{{ $variable }}__OPTIONS: {{ toJson . | quote }}
{{- end }}
{{- with $source.accept }}
{{ $variable }}__ACCEPT: {{ join "," . | quote }}
{{- end }}
{{- with $source.toleranceS }}
{{ $variable }}__TOLERANCE_S: {{ kindIs "string" . | ternary . (include "drx-bridge.number" .) | quote }}
{{- end }}
{{- with $source.ratePerS }}
{{ $variable }}__RATE_PER_S: {{ include "drx-bridge.number" . | quote }}
{{- end }}
{{- with $source.dedupeWindowS }}
{{ $variable }}__DEDUPE_WINDOW_S: {{ include "drx-bridge.number" . | quote }}
{{- end }}
{{- end }}
{{- end -}}

{{- /*
The consumers that run, by the name of their component; `name` is that of the entry point. What one does not say itself
stands in `consumerDefaults`; its `egress` comes besides. As JSON: ten templates read it, and as YAML that takes a third of
the time of a render.
*/}}
{{- define "drx-bridge.consumers" -}}
{{- $found := dict -}}
{{- $defaults := toJson .Values.consumerDefaults -}}
{{- range $key, $given := .Values.consumers -}}
{{- $consumer := mergeOverwrite (dict "enabled" true "options" dict) (fromJson $defaults) $given -}}
{{- $_ := set $consumer "name" (default $key $given.name) -}}
{{- $_ := set $consumer "egress" (concat (default list $.Values.consumerDefaults.egress) (default list $given.egress)) -}}
{{- if $consumer.enabled -}}
{{- $_ := set $found $key $consumer -}}
{{- end -}}
{{- end -}}
{{ toJson $found }}
{{- end -}}

{{- /* (list $ $consumer) */}}
{{- define "drx-bridge.consumerSettings" -}}
{{- $root := index . 0 -}}
{{- $consumer := index . 1 -}}
{{- $name := $consumer.name -}}
{{ include "drx-bridge.commonSettings" (list $root "CONSUMER" $consumer) }}
CONSUMER_MANAGEMENT__PORT: "9090"
CONSUMER_KAFKA__SESSION_S: {{ include "drx-bridge.number" $consumer.kafka.sessionS | quote }}
CONSUMER_KAFKA__OFFSET_RESET: {{ $consumer.kafka.offsetReset | quote }}
CONSUMER_POSTGRES__DSN_FILE: /etc/drx-bridge/postgres/{{ $consumer.postgres.secretKey }}
CONSUMER_POSTGRES__POOL_SIZE: {{ include "drx-bridge.number" $consumer.postgres.poolSize | quote }}
{{- with $consumer.acceptClusterId }}
CONSUMER_KAFKA__ACCEPT_CLUSTER_ID: {{ . | quote }}
{{- end }}
CONSUMER_SHUTDOWN__GRACE_S: {{ include "drx-bridge.number" $consumer.shutdown.graceS | quote }}
{{- range $key, $value := $consumer.options }}
CONSUMER_{{ $name | replace "-" "_" | upper }}__{{ upper $key }}: {{ include "drx-bridge.option" $value | quote }}
{{- end }}
{{- end -}}

{{- /* The value of an option's variable; for a Secret, a ConfigMap or a claim it is the path of its mount. */}}
{{- define "drx-bridge.option" -}}
{{- if kindIs "slice" . -}}
{{ join "," . }}
{{- else if kindIs "map" . -}}
{{ include "drx-bridge.mountPath" . }}{{ with .key }}/{{ . }}{{ end }}
{{- else if or (kindIs "string" .) (kindIs "bool" .) -}}
{{ . }}
{{- else -}}
{{ include "drx-bridge.number" . }}
{{- end -}}
{{- end -}}

{{- /* The name in an option: {secret: drx-key}. */}}
{{- define "drx-bridge.mountPath" -}}
{{ ternary "/var/lib" "/etc/drx-bridge" (hasKey . "claim") }}/{{ include "drx-bridge.volumeName" . }}
{{- end -}}

{{- define "drx-bridge.volumeName" -}}
{{- range $kind, $name := omit . "key" -}}
{{ printf "%s-%s" (lower $kind) $name | replace "." "-" | trunc 63 | trimSuffix "-" }}
{{- end -}}
{{- end -}}

{{- /* The group id of a consumer, as in `consumers.options`: each instance and each schema has a separate group. */}}
{{- define "drx-bridge.group" -}}
{{- $part := .options.instance | default (ternary "" .options.schema (eq (default "" .options.schema) .name)) -}}
{{- .group | default (printf "%s%s" .name (ternary (printf ".%s" $part) "" (not (empty $part)))) -}}
{{- end -}}

{{- /* Every topic that the ingress writes, from its routing table: the configured ones, then the standard ones. */}}
{{- define "drx-bridge.topics" -}}
{{- toJson (uniq (concat (values .Values.kafka.routes | sortAlpha) (list "drx.accounts.v1" "drx.prescriptions.v1" "drx.unrecognized.v1"))) -}}
{{- end -}}

{{- /* Topics that a consumer reads. */}}
{{- define "drx-bridge.read" -}}
{{- toJson (concat (default (list "drx.prescriptions.v1" "drx.accounts.v1") .options.topics) (default list .topics)) -}}
{{- end -}}

{{- /* "true" if Strimzi creates the user of a component: (list $ $component). */}}
{{- define "drx-bridge.strimziUser" -}}
{{- $strimzi := (index . 0).Values.strimzi -}}
{{- $login := (index . 1).kafka -}}
{{- if and $strimzi.cluster $strimzi.users (not (or $login.credentialsSecret $login.clientCertificateSecret)) -}}
true
{{- end -}}
{{- end -}}
