{{- /* Variables of what ingress and consumers have in common: (list $ "BRIDGE" $component). */}}
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
{{ $prefix }}_KAFKA__SASL_USERNAME_FILE: /etc/drx-bridge/kafka/username
{{ $prefix }}_KAFKA__SASL_PASSWORD_FILE: /etc/drx-bridge/kafka/password
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
{{ $prefix }}_LOG__FORMAT: json
{{- if $root.Values.logIds.keySecret }}
{{ $prefix }}_LOG__ID_KEY_DIR: /etc/drx-bridge/log-ids
{{- end }}
{{- end -}}

{{- /* What the topics must be, for the job that creates them and the processes that write to them. */}}
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
BRIDGE_HTTP__READ_TIMEOUT_S: {{ include "drx-bridge.number" $ingress.http.readTimeoutS | quote }}
BRIDGE_HTTP__KEEPALIVE_S: {{ include "drx-bridge.number" $ingress.http.keepaliveS | quote }}
BRIDGE_HTTP__CONNECTIONS_MAX: {{ include "drx-bridge.number" $ingress.http.connectionsMax | quote }}
BRIDGE_HTTP__READING_MAX_BYTES: {{ include "drx-bridge.number" $ingress.http.readingMaxBytes | quote }}
BRIDGE_HTTP__TLS_IN_FRONT: {{ $ingress.http.tlsInFront | quote }}
{{- with $ingress.http.addressRatePerS }}
BRIDGE_HTTP__ADDRESS_RATE_PER_S: {{ include "drx-bridge.number" . | quote }}
{{- end }}
{{- with $ingress.http.addressRateBurst }}
BRIDGE_HTTP__ADDRESS_RATE_BURST: {{ include "drx-bridge.number" . | quote }}
{{- end }}
{{- with $ingress.http.trustedProxies }}
BRIDGE_HTTP__TRUSTED_PROXIES: {{ . | quote }}
{{- end }}
BRIDGE_HTTP__INFLIGHT_MAX: {{ include "drx-bridge.number" $ingress.http.inflightMax | quote }}
BRIDGE_HTTP__INFLIGHT_MAX_BYTES: {{ include "drx-bridge.number" $ingress.http.inflightMaxBytes | quote }}
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
{{- with $ingress.spool.afterS }}
BRIDGE_SPOOL__AFTER_S: {{ include "drx-bridge.number" . | quote }}
{{- end }}
BRIDGE_DEDUPE__CAPACITY: {{ include "drx-bridge.number" $ingress.dedupe.capacity | quote }}
BRIDGE_HEARTBEAT__ENABLED: {{ $ingress.heartbeat.enabled | quote }}
BRIDGE_HEARTBEAT__EVERY_S: {{ include "drx-bridge.number" $ingress.heartbeat.everyS | quote }}
BRIDGE_SHUTDOWN__DRAIN_S: {{ include "drx-bridge.number" $ingress.shutdown.drainS | quote }}
BRIDGE_SHUTDOWN__FLUSH_S: {{ include "drx-bridge.number" $ingress.shutdown.flushS | quote }}
{{- /* Of the pod's grace the drain hook has taken its part when the process hears of the stop. */}}
BRIDGE_SHUTDOWN__GRACE_S: {{ include "drx-bridge.number" (subf $ingress.shutdown.graceS $ingress.preStopSleepS) | quote }}
{{- range $name, $source := $ingress.sources }}
{{- $variable := printf "BRIDGE_SOURCES__%s" (upper $name) }}
{{ $variable }}__PROFILE: {{ $source.profile | quote }}
{{ $variable }}__ENVIRONMENT: {{ $source.environment | quote }}
{{- if $source.existingSecret }}
{{ $variable }}__SECRETS_DIR: /etc/drx-bridge/sources/{{ $name }}
{{- end }}
{{- range $key, $value := $source }}
{{- if hasPrefix "scheme" $key }}
{{ $variable }}__{{ $key | snakecase | upper }}: {{ $value | quote }}
{{- end }}
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
{{- with $source.rateBurst }}
{{ $variable }}__RATE_BURST: {{ include "drx-bridge.number" . | quote }}
{{- end }}
{{- with $source.dedupeWindowS }}
{{ $variable }}__DEDUPE_WINDOW_S: {{ include "drx-bridge.number" . | quote }}
{{- end }}
{{- end }}
{{- end -}}

{{- /*
What runs, by the name of its component: each consumer, and each further endpoint of one. `name` is that of its
entry point, `path` where the values of this one stand, `home` where those stand that it shares. What it does not say
itself stands in `consumerDefaults`. As JSON: ten templates read it, and as YAML
that takes a third of the time of a render. A copy by JSON takes a quarter of the time of `deepCopy`.
*/}}
{{- define "drx-bridge.consumers" -}}
{{- $found := dict -}}
{{- $defaults := toJson .Values.consumerDefaults -}}
{{- range $name, $given := .Values.consumers -}}
{{- $consumer := mergeOverwrite (dict "enabled" true "options" dict) (fromJson $defaults) $given -}}
{{- $shared := mergeOverwrite (dict "name" $name "home" (printf "consumers.%s" $name)) (omit $consumer "instances") -}}
{{- $_ := set $found $name (mergeOverwrite (dict "path" (printf "consumers.%s" $name)) $shared) -}}
{{- range $instance, $own := default dict (get $consumer "instances") -}}
{{- $one := mergeOverwrite (omit (deepCopy $shared) "options" "endpoint") (deepCopy $own) -}}
{{- $_ := set $one "misnamed" (hasKey $one.options "instance") -}}
{{- $_ := set $one "doubled" (eq $instance (default "" $consumer.options.instance)) -}}
{{- $_ := set $one "options" (set $one.options "instance" $instance) -}}
{{- $_ := set $one "enabled" true -}}
{{- $_ := set $one "path" (printf "consumers.%s.instances.%s" $name $instance) -}}
{{- $_ := set $found (printf "%s-%s" $name $instance) $one -}}
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
CONSUMER_KAFKA__REBALANCE_S: {{ include "drx-bridge.number" $consumer.kafka.rebalanceS | quote }}
CONSUMER_KAFKA__MAX_POLL_S: {{ include "drx-bridge.number" $consumer.kafka.maxPollS | quote }}
CONSUMER_KAFKA__OFFSET_RESET: {{ $consumer.kafka.offsetReset | quote }}
{{- if $root.Values.registry.url }}
CONSUMER_REGISTRY__CACHE_DIR: /var/lib/drx-bridge/registry
{{- end }}
CONSUMER_POSTGRES__DSN_FILE: /etc/drx-bridge/postgres/dsn
CONSUMER_POSTGRES__POOL_SIZE: {{ include "drx-bridge.number" $consumer.postgres.poolSize | quote }}
{{- with $consumer.acceptClusterId }}
CONSUMER_KAFKA__ACCEPT_CLUSTER_ID: {{ . | quote }}
{{- end }}
CONSUMER_SHUTDOWN__DRAIN_S: {{ include "drx-bridge.number" $consumer.shutdown.drainS | quote }}
CONSUMER_SHUTDOWN__COMMIT_S: {{ include "drx-bridge.number" $consumer.shutdown.commitS | quote }}
CONSUMER_SHUTDOWN__GRACE_S: {{ include "drx-bridge.number" $consumer.shutdown.graceS | quote }}
{{- if eq $name "forward" }}
{{ include "drx-bridge.endpointSettings" $consumer.endpoint }}
{{- end }}
{{- if eq $name "fhir" }}
{{- include "drx-bridge.serverSettings" $consumer.server }}
{{- end }}
{{- if eq $name "hl7v2" }}
{{- include "drx-bridge.receiverSettings" $consumer.receiver }}
{{- end }}
{{- if eq $name "archive" }}
{{- include "drx-bridge.lakeSettings" $consumer.lake }}
{{- end }}
{{- if eq $name "workflow" }}
{{- include "drx-bridge.temporalSettings" $consumer.temporal }}
{{- end }}
{{- range $key, $value := $consumer.options }}
{{- if kindIs "slice" $value }}
CONSUMER_{{ $name | replace "-" "_" | upper }}__{{ upper $key }}: {{ join "," $value | quote }}
{{- else if or (kindIs "string" $value) (kindIs "bool" $value) }}
CONSUMER_{{ $name | replace "-" "_" | upper }}__{{ upper $key }}: {{ $value | quote }}
{{- else }}
CONSUMER_{{ $name | replace "-" "_" | upper }}__{{ upper $key }}: {{ include "drx-bridge.number" $value | quote }}
{{- end }}
{{- end }}
{{- end -}}

{{- /* Files of the endpoint of `forward`. */}}
{{- define "drx-bridge.endpointSettings" -}}
CONSUMER_FORWARD__SECRETS_DIR: /etc/drx-bridge/forward
{{- if .caSecret }}
CONSUMER_FORWARD__CA_FILE: /etc/drx-bridge/forward-ca/ca.crt
{{- end }}
{{- if .clientCertificateSecret }}
CONSUMER_FORWARD__CERT_FILE: /etc/drx-bridge/forward-client/tls.crt
CONSUMER_FORWARD__KEY_FILE: /etc/drx-bridge/forward-client/tls.key
{{- end }}
{{- if .headersSecret }}
CONSUMER_FORWARD__HEADERS_FILE: /etc/drx-bridge/forward-headers/headers
{{- end }}
{{- end -}}

{{- /* Files of the server of `fhir`. */}}
{{- define "drx-bridge.serverSettings" -}}
{{- if .tokenSecret }}
CONSUMER_FHIR__TOKEN_FILE: /etc/drx-bridge/fhir/token
{{- end }}
{{- if .smartKeySecret }}
CONSUMER_FHIR__SMART_KEY_FILE: /etc/drx-bridge/fhir-smart/key
{{- end }}
{{- if .caSecret }}
CONSUMER_FHIR__CA_FILE: /etc/drx-bridge/fhir-ca/ca.crt
{{- end }}
{{- if .clientCertificateSecret }}
CONSUMER_FHIR__CERT_FILE: /etc/drx-bridge/fhir-client/tls.crt
CONSUMER_FHIR__KEY_FILE: /etc/drx-bridge/fhir-client/tls.key
{{- end }}
{{- end -}}

{{- /* Files of the receiver of `hl7v2`. */}}
{{- define "drx-bridge.receiverSettings" -}}
{{- if .caSecret }}
CONSUMER_HL7V2__CA_FILE: /etc/drx-bridge/hl7v2-ca/ca.crt
{{- end }}
{{- if .clientCertificateSecret }}
CONSUMER_HL7V2__CERT_FILE: /etc/drx-bridge/hl7v2-client/tls.crt
CONSUMER_HL7V2__KEY_FILE: /etc/drx-bridge/hl7v2-client/tls.key
{{- end }}
{{- end -}}

{{- /* Place and files of the lake of `archive`; its client of S3 finds the credentials by itself. */}}
{{- define "drx-bridge.lakeSettings" -}}
{{- if .existingClaim }}
CONSUMER_ARCHIVE__ROOT: /var/lib/drx-lake
{{- end }}
{{- if .credentialsSecret }}
AWS_SHARED_CREDENTIALS_FILE: /etc/drx-bridge/archive-s3/credentials
{{- end }}
{{- if .hashKeySecret }}
CONSUMER_ARCHIVE__HASH_KEY_FILE: /etc/drx-bridge/archive-ids/current
{{- end }}
{{- end -}}

{{- /* Files of the server of `workflow`. */}}
{{- define "drx-bridge.temporalSettings" -}}
{{- if .tlsSecret }}
CONSUMER_WORKFLOW__TLS_DIR: /etc/drx-bridge/workflow-tls
{{- end }}
{{- if .apiKeySecret }}
CONSUMER_WORKFLOW__API_KEY_FILE: /etc/drx-bridge/workflow-api-key/key
{{- end }}
{{- if .codecKeySecret }}
CONSUMER_WORKFLOW__CODEC_KEY_DIR: /etc/drx-bridge/workflow-codec
{{- end }}
{{- if .rulesConfigMap }}
CONSUMER_WORKFLOW__RULES: /etc/drx-bridge/workflow-rules/rules.toml
{{- end }}
{{- end -}}

{{- /* The group id of a consumer, as it names itself: each schema is a read model or a lake, each instance an endpoint. */}}
{{- define "drx-bridge.group" -}}
{{- $name := .name -}}
{{- if .group -}}
{{ .group }}
{{- else -}}
{{- $key := get (dict "read_model" "schema" "archive" "schema" "forward" "instance" "fhir" "instance" "hl7v2" "instance" "workflow" "instance") $name -}}
{{- $part := get .options $key -}}
{{- if or (not $part) (and (eq $key "schema") (eq $part $name)) }}{{ $name }}{{ else }}{{ $name }}.{{ $part }}{{ end -}}
{{- end -}}
{{- end -}}

{{- /* Every topic that the ingress writes, as its routing table has them: those of a site, then the standard ones. */}}
{{- define "drx-bridge.topics" -}}
{{- toJson (uniq (concat (values .Values.kafka.routes | sortAlpha) (list "drx.accounts.v1" "drx.prescriptions.v1" "drx.unrecognized.v1"))) -}}
{{- end -}}

{{- /* Topics that a consumer reads, as its options have them. */}}
{{- define "drx-bridge.read" -}}
{{- $usual := list "drx.prescriptions.v1" "drx.accounts.v1" -}}
{{- if has .name (list "fhir" "hl7v2") -}}
{{- $usual = list "drx.prescriptions.v1" -}}
{{- end -}}
{{- $raw := ternary (list "drx.unrecognized.v1") list (and (eq .name "archive") (eq "true" (toString .options.raw))) -}}
{{- toJson (concat (default $usual .options.topics) $raw) -}}
{{- end -}}

{{- /* "true" where Strimzi makes the user of a component: (list $ $component). */}}
{{- define "drx-bridge.strimziUser" -}}
{{- $strimzi := (index . 0).Values.strimzi -}}
{{- $login := (index . 1).kafka -}}
{{- if and $strimzi.cluster $strimzi.users (not (or $login.credentialsSecret $login.clientCertificateSecret)) -}}
true
{{- end -}}
{{- end -}}
