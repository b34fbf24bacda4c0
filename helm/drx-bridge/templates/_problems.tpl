{{- /*
What the schema cannot say, one problem a line: the value, what is wrong with it, and what to do.
Every other template takes whatever comes, so that all problems are told at once and here.
*/}}
{{- define "drx-bridge.problems" -}}
{{ include "drx-bridge.imageProblems" . }}
{{ include "drx-bridge.kafkaProblems" . }}
{{ include "drx-bridge.topicProblems" . }}
{{ include "drx-bridge.alertProblems" . }}
{{ include "drx-bridge.registryProblems" . }}
{{ include "drx-bridge.logProblems" . }}
{{ include "drx-bridge.keyProblems" (list "commonLabels" .Values.commonLabels (include "drx-bridge.ownLabels" (list . "any"))) }}
{{ include "drx-bridge.externalSecretProblems" .Values.externalSecrets }}
{{ include "drx-bridge.externalKeyProblems" . }}
{{ include "drx-bridge.nameProblems" . }}
{{ include "drx-bridge.accountProblems" . }}
{{- range $table := list "labels" "rulesLabels" "dashboardsLabels" }}
{{ include "drx-bridge.keyProblems" (list (printf "monitoring.%s" $table) (default dict (get $.Values.monitoring $table)) (include "drx-bridge.labels" (list $ "any"))) }}
{{- end }}
{{- if .Values.ingress.enabled }}
{{ include "drx-bridge.sourceProblems" . }}
{{ include "drx-bridge.spoolProblems" . }}
{{ include "drx-bridge.exposureProblems" . }}
{{ include "drx-bridge.memoryProblems" . }}
{{ include "drx-bridge.sizeProblems" . }}
{{ include "drx-bridge.ingressTimeProblems" . }}
{{ include "drx-bridge.componentProblems" (list . "ingress" .Values.ingress) }}
{{- end }}
{{- range $key, $consumer := include "drx-bridge.consumers" . | fromJson }}
{{- if $consumer.enabled }}
{{- /* What an endpoint has of its own is told under its path, the rest under that of its consumer. */}}
{{- $path := $consumer.home }}
{{- with $consumer.image }}
{{- if and .repository (not (or .digest .tag)) }}
{{ $path }}.image.digest: is not set, and there is no tag; name the image by digest, sha256:…, or by {{ $path }}.image.tag
{{- else if and (or .digest .tag) (not .repository) }}
{{ $path }}.image.repository: is not set, and a tag or a digest means nothing without it; name the repository
{{- end }}
{{- end }}
{{ include "drx-bridge.consumerProblems" (list $ $path $consumer) }}
{{- if eq $consumer.name "forward" }}
{{ include "drx-bridge.forwardProblems" $consumer }}
{{- end }}
{{- if eq $consumer.name "fhir" }}
{{ include "drx-bridge.fhirProblems" $consumer }}
{{- end }}
{{- if eq $consumer.name "hl7v2" }}
{{ include "drx-bridge.hl7v2Problems" $consumer }}
{{- end }}
{{- if eq $consumer.name "archive" }}
{{ include "drx-bridge.archiveProblems" $consumer }}
{{- end }}
{{- if eq $consumer.name "workflow" }}
{{ include "drx-bridge.workflowProblems" $consumer }}
{{- end }}
{{ include "drx-bridge.componentProblems" (list $ $path $consumer) }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "drx-bridge.imageProblems" -}}
{{- if not .Values.image.repository }}
image.repository: is not set; name the repository that the image was pushed to
{{- end }}
{{- if not (or .Values.image.digest .Values.image.tag) }}
image.digest: is not set, and there is no tag; name the image by digest, sha256:…, so that what runs is what was tested, or by image.tag
{{- end }}
{{- end -}}

{{- define "drx-bridge.alertProblems" -}}
{{- with .Values.monitoring.alerts }}
{{- $alerts := dict }}
{{- range ($.Files.Get "files/rules.yaml" | fromYaml).groups }}
{{- range .rules }}
{{- $alerts = set $alerts (default "" .alert) true }}
{{- end }}
{{- end }}
{{- $thresholds := $.Files.Get "files/thresholds.yaml" | fromYaml }}
{{- $names := keys $alerts | compact | sortAlpha }}
{{- range $name, $wish := . }}
{{- if not (hasKey $alerts $name) }}
{{- /* Those that begin alike, where there are some: a slip is rarely in the first letters, and all are a long line. */}}
{{- $alike := list }}
{{- range $names }}
{{- if hasPrefix (substr 0 2 $name) . }}
{{- $alike = append $alike . }}
{{- end }}
{{- end }}
monitoring.alerts.{{ $name }}: there is no such alert; name one of {{ default $names $alike | join ", " }}
{{- else if and (hasKey $wish "threshold") (not (hasKey $thresholds $name)) }}
monitoring.alerts.{{ $name }}.threshold: it has none that is a single number; disable it, and put a rule of your own into monitoring.extraRules
{{- end }}
{{- end }}
{{- end }}
{{- if and .Values.monitoring.grafanaOperator.enabled (not .Values.monitoring.dashboards) }}
monitoring.grafanaOperator.enabled: its objects name the ConfigMaps of the dashboards; set monitoring.dashboards to true
{{- end }}
{{- end -}}

{{- define "drx-bridge.topicProblems" -}}
{{- $kafka := .Values.kafka }}
{{- $job := .Values.topicsJob }}
{{- $strimzi := .Values.strimzi }}
{{- if $job.enabled }}
{{- if and (hasPrefix "SASL" $kafka.securityProtocol) (not (or $job.credentialsSecret .Values.ingress.kafka.credentialsSecret)) }}
topicsJob.credentialsSecret: is not set, nor ingress.kafka.credentialsSecret; name a Secret with the keys username and password of a user who may create topics
{{- end }}
{{- if and (eq $kafka.securityProtocol "SSL") $strimzi.cluster $strimzi.users (not (or $job.clientCertificateSecret .Values.ingress.kafka.clientCertificateSecret)) }}
topicsJob.clientCertificateSecret: is not set, nor ingress.kafka.clientCertificateSecret, and users of Strimzi come after the Job; name a Secret with the keys tls.crt and tls.key of a user who may create topics
{{- end }}
{{- if and $job.replicationFactor (gt (int $job.minInsyncReplicas) (int $job.replicationFactor)) }}
topicsJob.minInsyncReplicas: must not exceed replicationFactor
{{- end }}
{{- if and $strimzi.cluster $strimzi.topics }}
topicsJob.enabled: Strimzi makes the topics; set one of topicsJob.enabled and strimzi.topics to false
{{- end }}
{{- end }}
{{- if $strimzi.cluster }}
{{- if gt (int $strimzi.minInsyncReplicas) (int $strimzi.replicas) }}
strimzi.minInsyncReplicas: must not exceed replicas
{{- end }}
{{- if and $strimzi.users (ne (default .Release.Namespace $strimzi.namespace) .Release.Namespace) }}
strimzi.users: the Secrets of its users would be in {{ $strimzi.namespace }}, and pods mount those of their own namespace; install into that one, or set strimzi.users to false and copy Secrets
{{- end }}
{{- if and $strimzi.users (hasPrefix "SASL" $kafka.securityProtocol) (ne $kafka.saslMechanism "SCRAM-SHA-512") }}
kafka.saslMechanism: users of Strimzi have SCRAM-SHA-512; set that, or strimzi.users to false
{{- end }}
{{- end }}
{{- end -}}

{{- define "drx-bridge.kafkaProblems" -}}
{{- $kafka := .Values.kafka }}
{{- if and (ne $kafka.saslMechanism "OAUTHBEARER") (or $kafka.tokenUrl $kafka.tokenScope) }}
kafka.tokenUrl: {{ $kafka.saslMechanism }} takes no tokens; set kafka.saslMechanism to OAUTHBEARER, or take kafka.tokenUrl and kafka.tokenScope out
{{- end }}
{{- if and (eq $kafka.saslMechanism "OAUTHBEARER") (not $kafka.tokenUrl) }}
kafka.tokenUrl: is not set; name the token endpoint, https://…
{{- end }}
{{- if not $kafka.bootstrapServers }}
kafka.bootstrapServers: is not set; give host:port of some brokers, separated by commas
{{- end }}
{{- if $kafka.password }}
kafka.password: a secret has no place in values, which are kept with the release; put it into a Secret with the keys username and password and name that in ingress.kafka.credentialsSecret and consumers.<name>.kafka.credentialsSecret
{{- end }}
{{- if not (has $kafka.securityProtocol (list "SSL" "SASL_SSL")) }}
{{- if $kafka.caSecret }}
kafka.caSecret: is set, but {{ $kafka.securityProtocol }} uses no certificates; set kafka.securityProtocol to SSL or SASL_SSL
{{- end }}
{{- $real := false }}
{{- range $name, $source := .Values.ingress.sources }}
{{- if eq $source.environment "production" }}
{{- $real = true }}
kafka.securityProtocol: {{ $kafka.securityProtocol }} carries what source {{ $name }} sends in clear, and that is production; set SSL or SASL_SSL
{{- end }}
{{- end }}
{{- /* No accepted risk helps a production source, so none is offered beside one. */}}
{{- if and (not (has "plaintext_kafka" .Values.accept)) (not $real) }}
kafka.securityProtocol: {{ $kafka.securityProtocol }} carries health information in clear; set SSL or SASL_SSL, or add plaintext_kafka to accept
{{- end }}
{{- end }}
{{- end -}}

{{- define "drx-bridge.registryProblems" -}}
{{- $registry := .Values.registry }}
{{- if or $registry.password (contains "@" (default "" $registry.url)) }}
registry.{{ ternary "password" "url" (not (empty $registry.password)) }}: a secret has no place in values, which are kept with the release; put it into a Secret with the keys username and password and name that in ingress.registry.credentialsSecret and consumers.<name>.registry.credentialsSecret
{{- end }}
{{- end -}}

{{- define "drx-bridge.logProblems" -}}
{{- if .Values.logIds.key }}
logIds.key: a secret has no place in values, which are kept with the release; put it into a Secret with the key current and name that in logIds.keySecret
{{- end }}
{{- end -}}

{{- define "drx-bridge.sourceProblems" -}}
{{- if not .Values.ingress.sources }}
ingress.sources: is empty; name at least one sender, with profile, environment and existingSecret
{{- end }}
{{- $profiles := list "drx_standard" "digitalrx_pharmacy" "dosespot_push" "photon_cloudevents" "mapped" }}
{{- $schemes := list "standard_webhooks" "body_hmac" "ed25519" "secret_header" "basic" "url_token" "cidr" "github" "stripe" "shopify" "photon" "dosespot" }}
{{- range $name, $source := .Values.ingress.sources }}
{{- $ships := has $source.profile $profiles }}
{{- if not (or $ships $source.ownProfile) }}
ingress.sources.{{ $name }}.profile: no profile that ships is named {{ $source.profile }}; name one of {{ join ", " $profiles }}, or set ingress.sources.{{ $name }}.ownProfile to true if a package in the image brings it
{{- else if and $ships $source.ownProfile }}
ingress.sources.{{ $name }}.ownProfile: is true, but {{ $source.profile }} ships with the bridge; take it out
{{- end }}
{{- range splitList "+" (default "standard_webhooks" $source.scheme) }}
{{- if not (has . $schemes) }}
ingress.sources.{{ $name }}.scheme: no scheme is named {{ . }}; name one of {{ join ", " $schemes }}, or several joined by +
{{- end }}
{{- end }}
{{- if $source.secret }}
ingress.sources.{{ $name }}.secret: a secret has no place in values, which are kept with the release; put it into a Secret with the key current and name that in ingress.sources.{{ $name }}.existingSecret
{{- else if and (not $source.existingSecret) (ne (default "" $source.scheme) "cidr") }}
ingress.sources.{{ $name }}.existingSecret: is not set; name the Secret that holds one key per slot, such as current
{{- end }}
{{- end }}
{{- $test := .Values.heartbeatTest }}
{{- if and $test.enabled $test.source }}
{{- $named := get (default dict .Values.ingress.sources) $test.source }}
{{- if not $named }}
heartbeatTest.source: {{ $test.source }} is no source; name one of ingress.sources, or none to take the first that can be used
{{- else if not (include "drx-bridge.isNative" $named) }}
heartbeatTest.source: {{ $test.source }} does not take what the test sends; name a source of profile drx_standard and scheme standard_webhooks, or set heartbeatTest.enabled to false
{{- end }}
{{- end }}
{{- end -}}

{{- define "drx-bridge.spoolProblems" -}}
{{- $spool := .Values.ingress.spool }}
{{- if $spool.key }}
ingress.spool.key: a secret has no place in values, which are kept with the release; put it into a Secret with the key current and name that in ingress.spool.keySecret
{{- end }}
{{- if and (or $spool.enabled $spool.drainClaims) (not $spool.keySecret) (not $spool.key) }}
ingress.spool.keySecret: is not set; name a Secret whose key current is spk_ and the base64 of 32 random bytes, or set ingress.spool.enabled to false and leave ingress.spool.drainClaims empty
{{- end }}
{{- if $spool.enabled }}
{{- range $number := until (int .Values.ingress.replicas) }}
{{- $claim := printf "data-%s-%d" (include "drx-bridge.name" (list $ "ingress")) $number }}
{{- if has $claim $spool.drainClaims }}
ingress.spool.drainClaims: {{ $claim }} is of a pod that runs and drains it by itself; lower ingress.replicas, or take it out
{{- end }}
{{- end }}
{{- if not $spool.volume.sizeGi }}
ingress.spool.volume.sizeGi: is 0, and a spool without a volume of its own dies with its pod; give the volume a size, or set ingress.spool.enabled to false
{{- else if gt (mulf $spool.capacityBytes 1.25) (mulf $spool.volume.sizeGi 1073741824) }}
ingress.spool.volume.sizeGi: {{ include "drx-bridge.number" $spool.volume.sizeGi }} Gi do not hold ingress.spool.capacityBytes and a fifth to spare; enlarge the volume, of a release that runs as README.md says under Volumes of the spool, or lower the capacity
{{- end }}
{{- if .Values.ingress.hpa.enabled }}
ingress.hpa.enabled: an autoscaler takes pods away, and each would leave a spool that nobody drains; set ingress.replicas instead, or ingress.spool.enabled to false, in a release that runs as README.md says under Volumes of the spool
{{- end }}
{{- end }}
{{- end -}}

{{- /* Service accounts that would be made twice. */}}
{{- define "drx-bridge.accountProblems" -}}
{{- $made := dict }}
{{- if and .Values.ingress.enabled .Values.ingress.serviceAccount.create }}
{{- $made = set $made (include "drx-bridge.serviceAccountName" (list . .Values.ingress "ingress")) "ingress" }}
{{- end }}
{{- range $key, $consumer := include "drx-bridge.consumers" . | fromJson }}
{{- if and $consumer.enabled $consumer.serviceAccount.create }}
{{- $name := include "drx-bridge.serviceAccountName" (list $ $consumer $key) }}
{{- if hasKey $made $name }}
{{ $consumer.path }}.serviceAccount.name: {{ $name }} is made for {{ get $made $name }} already; leave the name out, or set serviceAccount.create to false and bring one for all
{{- end }}
{{- $made = set $made $name $consumer.path }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "drx-bridge.externalSecretProblems" -}}
{{- if and .secrets (not .storeRef.name) }}
externalSecrets.storeRef.name: is not set; name the SecretStore that the secrets come from
{{- end }}
{{- range $name, $secret := .secrets }}
{{- if eq (empty $secret.extract) (empty $secret.keys) }}
externalSecrets.secrets.{{ $name }}: needs either extract or keys; name one entry of the store, or one for each key
{{- end }}
{{- end }}
{{- end -}}

{{- /* Keys that a Secret of the store is mounted for, by the volume; a directory of slots takes keys of any name. */}}
{{- define "drx-bridge.externalKeyProblems" -}}
{{- $login := list "username" "password" }}
{{- $authority := list "ca.crt" }}
{{- $certificate := list "tls.crt" "tls.key" }}
{{- $current := list "current" }}
{{- $read := dict "kafka" $login "registry" $login "log-ids" $current "spool-keys" $current "heartbeat" $current "postgres" (list "dsn") "fhir" (list "token") "fhir-smart" (list "key") "forward-headers" (list "headers") "archive-s3" (list "credentials") "archive-ids" $current "workflow-api-key" (list "key") }}
{{- range list "kafka" "forward" "fhir" "hl7v2" }}
{{- $_ := set $read (printf "%s-ca" .) $authority }}
{{- $_ := set $read (printf "%s-client" .) $certificate }}
{{- end }}
{{- $ingress := .Values.ingress }}
{{- if $ingress.enabled }}
{{- $volumes := include "drx-bridge.commonSecrets" (list . $ingress) | fromYaml }}
{{- if or $ingress.spool.enabled $ingress.spool.drainClaims }}
{{- $_ := set $volumes "spool-keys" $ingress.spool.keySecret }}
{{- end }}
{{- if .Values.heartbeatTest.enabled }}
{{- $_ := set $volumes "heartbeat" (default dict (get (default dict $ingress.sources) (include "drx-bridge.testSource" .))).existingSecret }}
{{- end }}
{{ include "drx-bridge.missingKeys" (list .Values.externalSecrets.secrets "ingress" $volumes $read) }}
{{- end }}
{{- if .Values.topicsJob.enabled }}
{{ include "drx-bridge.missingKeys" (list .Values.externalSecrets.secrets "topicsJob" (dict "kafka" .Values.topicsJob.credentialsSecret "kafka-client" .Values.topicsJob.clientCertificateSecret) $read) }}
{{- end }}
{{- range $key, $consumer := include "drx-bridge.consumers" . | fromJson }}
{{- if $consumer.enabled }}
{{- $volumes := include "drx-bridge.commonSecrets" (list $ $consumer) | fromYaml }}
{{ include "drx-bridge.missingKeys" (list $.Values.externalSecrets.secrets $consumer.path (set $volumes "postgres" $consumer.postgres.existingSecret) $read) }}
{{ include "drx-bridge.missingKeys" (list $.Values.externalSecrets.secrets $consumer.path (dict "postgres" $consumer.init.postgresSecret) $read) }}
{{- end }}
{{- end }}
{{- end -}}

{{- /* (list $secrets "ingress" "Secret by volume" "keys by volume") */}}
{{- define "drx-bridge.missingKeys" -}}
{{- $secrets := index . 0 -}}
{{- $path := index . 1 -}}
{{- $read := index . 3 -}}
{{- range $volume, $name := index . 2 }}
{{- $keys := (default dict (get $secrets (default "" $name))).keys }}
{{- if $keys }}
{{- range get $read $volume }}
{{- if not (hasKey $keys .) }}
externalSecrets.secrets.{{ $name }}.keys: has no {{ . }}, which {{ $path }} reads; it has {{ keys $keys | sortAlpha | join ", " }}; add the key, or mend its name
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{- /* A consumer that ships has a name; one that has none is a slip of the pen, or somebody's own. */}}
{{- define "drx-bridge.nameProblems" -}}
{{- $shipped := list "read_model" "forward" "fhir" "hl7v2" "archive" "workflow" }}
{{- range $key, $consumer := .Values.consumers }}
{{- if not (or (has $key $shipped) (get (default dict $consumer) "name")) }}
consumers.{{ $key }}.name: is not set, and {{ $key }} is not a shipped consumer; write one of {{ join ", " $shipped }}, or, for one of your own, set name to that of its entry point
{{- end }}
{{- end }}
{{- end -}}

{{- define "drx-bridge.exposureProblems" -}}
{{- $ingress := .Values.ingress }}
{{- if and (ne $ingress.service.type "ClusterIP") (not $ingress.http.tlsInFront) }}
ingress.service.type: {{ $ingress.service.type }} shows a port without TLS to the outside, and deliveries carry health information; have the balancer end TLS and set ingress.http.tlsInFront to true, or use ingress.httpRoute or ingress.kubernetesIngress
{{- end }}
{{- range $variable := $ingress.extraEnv }}
{{- if eq $variable.name "BRIDGE_INSTANCE" }}
ingress.extraEnv: BRIDGE_INSTANCE is the name of the pod, which the chart sets; take it out
{{- end }}
{{- end }}
{{- if and $ingress.httpRoute.enabled $ingress.kubernetesIngress.enabled }}
ingress.kubernetesIngress.enabled: an HTTPRoute and an Ingress would both lead to the same port; set one of ingress.httpRoute.enabled and ingress.kubernetesIngress.enabled to false
{{- end }}
{{- if and $ingress.httpRoute.enabled (not $ingress.httpRoute.parentRefs) }}
ingress.httpRoute.parentRefs: is empty; name the Gateway that the route belongs to
{{- end }}
{{- if and $ingress.kubernetesIngress.enabled (not (and $ingress.kubernetesIngress.host $ingress.kubernetesIngress.tlsSecret)) }}
ingress.kubernetesIngress: needs host and tlsSecret; deliveries carry health information and come by HTTPS only
{{- end }}
{{- end -}}

{{- define "drx-bridge.ingressTimeProblems" -}}
{{- $ingress := .Values.ingress }}
{{- $shutdown := $ingress.shutdown }}
{{- if ge (float64 $ingress.spool.afterS) (float64 $ingress.http.deadlineS) }}
ingress.spool.afterS: must be less than ingress.http.deadlineS, or no time is left to spool
{{- end }}
{{- if ge (float64 $ingress.http.deadlineS) (float64 $shutdown.drainS) }}
ingress.shutdown.drainS: must be more than ingress.http.deadlineS, or a stop would cut answers off
{{- end }}
{{- if ge (addf $ingress.preStopSleepS $shutdown.drainS $shutdown.flushS) (float64 $shutdown.graceS) }}
ingress.shutdown.graceS: must be more than preStopSleepS, drainS and flushS together, or the pod is killed amid its stop
{{- end }}
{{- end -}}

{{- /*
What the ingress fills by its settings: 41 bytes an id at most (33 in arrays, and a table of the next power of two), the
bodies in hand and those that are not whole, 32 KiB a connection, 26 bytes for each spooled event of 1,148 (24 in arrays
that grow by a sixteenth), and the process itself, 119 MiB when it was measured under load.
*/}}
{{- define "drx-bridge.memoryProblems" -}}
{{- $ingress := .Values.ingress }}
{{- with $ingress.resources.limits.memory }}
{{- $spool := ternary (divf (mulf $ingress.spool.capacityBytes 26) 1148) 0.0 $ingress.spool.enabled }}
{{- $needed := addf (mulf $ingress.dedupe.capacity 41) (mulf $ingress.http.connectionsMax 32768) $ingress.http.readingMaxBytes $ingress.http.inflightMaxBytes $spool 134217728 }}
{{- if gt $needed (include "drx-bridge.bytes" . | float64) }}
ingress.resources.limits.memory: {{ . }} do not hold the process, ingress.dedupe.capacity ids, ingress.http.connectionsMax, readingMaxBytes and inflightMaxBytes, and the index of ingress.spool.capacityBytes, at least {{ divf $needed 1048576 | ceil }}Mi together; raise it, or lower one of these
{{- end }}
{{- end }}
{{- end -}}

{{- /* 16 KiB stand around a body that is parked as it came. */}}
{{- define "drx-bridge.sizeProblems" -}}
{{- if gt (addf .Values.ingress.http.bodyMaxBytes 16384) (float64 .Values.kafka.messageMaxBytes) }}
ingress.http.bodyMaxBytes: must leave 16384 of kafka.messageMaxBytes, or the largest body could not even be parked; lower it, or raise that
{{- end }}
{{- end -}}

{{- /* Keys that would stand beside the chart's own: (list "ingress.podLabels" $table "the chart's own, as YAML"). */}}
{{- define "drx-bridge.keyProblems" -}}
{{- $path := index . 0 -}}
{{- $own := index . 2 | fromYaml -}}
{{- range $key, $_ := index . 1 }}
{{- if hasKey $own $key }}
{{ $path }}: {{ $key }} is the chart's own, by which it finds or renews what it made; take it out, or choose another name
{{- end }}
{{- end }}
{{- end -}}

{{- /* (list $ "ingress" $component) */}}
{{- define "drx-bridge.componentProblems" -}}
{{- $root := index . 0 -}}
{{- $path := index . 1 -}}
{{- $component := index . 2 -}}
{{- $protocol := $root.Values.kafka.securityProtocol }}
{{- $credentials := $component.kafka.credentialsSecret }}
{{- if and (hasPrefix "SASL" $protocol) (not $credentials) (not (include "drx-bridge.strimziUser" (list $root $component))) }}
{{ $path }}.kafka.credentialsSecret: is not set, but {{ $protocol }} needs it; name a Secret with the keys username and password, or set kafka.securityProtocol to SSL
{{- else if and $credentials (not (hasPrefix "SASL" $protocol)) }}
{{ $path }}.kafka.credentialsSecret: is set, but {{ $protocol }} knows no users; set kafka.securityProtocol to SASL_SSL, or leave this empty
{{- end }}
{{- if and $component.kafka.clientCertificateSecret (not (has $protocol (list "SSL" "SASL_SSL"))) }}
{{ $path }}.kafka.clientCertificateSecret: is set, but {{ $protocol }} uses no certificates; set kafka.securityProtocol to SSL or SASL_SSL
{{- end }}
{{- if and (eq $component.log.level "debug") (not (has "debug_log" $root.Values.accept)) }}
{{ $path }}.log.level: is debug, and libraries log what nobody has read; set info, or add debug_log to accept
{{- end }}
{{- if and $component.registry.credentialsSecret (not $root.Values.registry.url) }}
{{ $path }}.registry.credentialsSecret: is set, but there is no registry; set registry.url, or leave this empty
{{- end }}
{{- if and $component.hpa.enabled (gt (int $component.hpa.minReplicas) (int $component.hpa.maxReplicas)) }}
{{ $path }}.hpa.minReplicas: must not exceed maxReplicas
{{- end }}
{{ include "drx-bridge.keyProblems" (list (printf "%s.podLabels" $path) $component.podLabels (include "drx-bridge.selector" (list $root $path))) }}
{{ include "drx-bridge.keyProblems" (list (printf "%s.podAnnotations" $path) $component.podAnnotations (include "drx-bridge.checksum" $path)) }}
{{- end -}}

{{- define "drx-bridge.forwardProblems" -}}
{{- $url := default "" .options.url }}
{{- if not $url }}
{{ .path }}.options.url: is not set; name the endpoint that events are posted to
{{- else if and (hasPrefix "http://" $url) (not .options.allow_http) }}
{{ .path }}.options.url: is plain HTTP, and what is sent is health information; name an https:// URL, or set {{ .path }}.options.allow_http to true
{{- end }}
{{- if .misnamed }}
{{ .path }}.options.instance: is the name that it has already; take it out
{{- end }}
{{- if .doubled }}
{{ .path }}: consumers.forward.options.instance names the same endpoint, and both would share a group; choose another name
{{- end }}
{{- if not .endpoint.signingSecret }}
{{ .path }}.endpoint.signingSecret: is not set; name the Secret that holds one key per slot, such as current
{{- end }}
{{- end -}}

{{- define "drx-bridge.fhirProblems" -}}
{{- $url := default "" .options.base_url }}
{{- if not $url }}
{{ .path }}.options.base_url: is not set; name the base URL of the FHIR server
{{- else if and (hasPrefix "http://" $url) (not .options.allow_http) }}
{{ .path }}.options.base_url: is plain HTTP, and what is sent is health information; name an https:// URL, or set {{ .path }}.options.allow_http to true
{{- end }}
{{- $smart := list .options.smart_token_url .options.smart_client_id .server.smartKeySecret | compact }}
{{- if and $smart (or (lt (len $smart) 3) .server.tokenSecret) }}
{{ .path }}.server.smartKeySecret: belongs together with options.smart_token_url and options.smart_client_id, and stands in the place of server.tokenSecret; set all three and no token, or none of them
{{- end }}
{{- end -}}

{{- define "drx-bridge.hl7v2Problems" -}}
{{- range $name := list "host" "port" }}
{{- if not (get $.options $name) }}
{{ $.path }}.options.{{ $name }}: is not set; name the {{ $name }} of the receiver
{{- end }}
{{- end }}
{{- end -}}

{{- define "drx-bridge.archiveProblems" -}}
{{- $options := .options }}
{{- if and $options.root .lake.existingClaim }}
{{ .path }}.lake.existingClaim: the lake lies in the bucket of {{ .path }}.options.root; take one of them out
{{- else if not (or $options.root .lake.existingClaim) }}
{{ .path }}.lake.existingClaim: is not set; name the PersistentVolumeClaim of the lake, or s3://bucket/prefix in {{ .path }}.options.root
{{- end }}
{{- if and (not $options.root) (or $options.endpoint $options.region .lake.credentialsSecret) }}
{{ .path }}.options.root: is not set, and options.endpoint, options.region and lake.credentialsSecret belong to a bucket; name s3://bucket/prefix, or take them out
{{- end }}
{{- if and (hasPrefix "http://" (default "" $options.endpoint)) (not $options.allow_http) }}
{{ .path }}.options.endpoint: is plain HTTP, and what is written is health information; name an https:// URL, or set {{ .path }}.options.allow_http to true
{{- end }}
{{- if ne (eq (default "all" $options.columns) "hashed") (not (empty .lake.hashKeySecret)) }}
{{ .path }}.lake.hashKeySecret: belongs to {{ .path }}.options.columns of hashed; name the Secret whose key current makes the digests, or take it out
{{- end }}
{{- if and $options.raw (ne (default "all" $options.columns) "all") }}
{{ .path }}.options.raw: raw bodies identify persons; set {{ .path }}.options.columns to all, or raw to false
{{- end }}
{{- /* Three batches are in hand, of 14 KiB an event; the process itself and its libraries take 140 MiB. */}}
{{- $needed := addf (mulf (default 5000 $options.batch_records) 43008) 146800640 }}
{{- $path := .path }}
{{- with .resources.limits.memory }}
{{- if gt $needed (include "drx-bridge.bytes" . | float64) }}
{{ $path }}.resources.limits.memory: {{ . }} do not hold three batches of {{ $path }}.options.batch_records, at least {{ divf $needed 1048576 | ceil }}Mi; raise it, or lower that
{{- end }}
{{- end }}
{{- end -}}

{{- define "drx-bridge.workflowProblems" -}}
{{- if not .options.address }}
{{ .path }}.options.address: is not set; name the frontend of Temporal, host:port
{{- end }}
{{- if and (eq (default "ids" .options.payload) "full") (not .temporal.codecKeySecret) }}
{{ .path }}.temporal.codecKeySecret: is not set, and payload is full; name the Secret with the key that seals what Temporal keeps
{{- end }}
{{- end -}}

{{- /* (list $ "consumers.read_model" $consumer) */}}
{{- define "drx-bridge.consumerProblems" -}}
{{- $root := index . 0 -}}
{{- $path := index . 1 -}}
{{- $consumer := index . 2 -}}
{{- $partitions := int $root.Values.kafka.partitions }}
{{- if $consumer.postgres.dsn }}
{{ $path }}.postgres.dsn: a secret has no place in values, which are kept with the release; put it into a Secret with the key dsn and name that in {{ $path }}.postgres.existingSecret
{{- else if not $consumer.postgres.existingSecret }}
{{ $path }}.postgres.existingSecret: is not set; name the Secret whose key dsn is postgresql://user:password@host:port/database, or set {{ $path }}.enabled to false
{{- end }}
{{- if and $consumer.hpa.enabled $consumer.keda.enabled }}
{{ $path }}.keda.enabled: KEDA makes an HPA of its own and the two would fight; set one of {{ $path }}.hpa.enabled and {{ $path }}.keda.enabled to false
{{- end }}
{{- range $scaler := list "hpa" "keda" }}
{{- $scaling := get $consumer $scaler }}
{{- if and $scaling.enabled (gt (int $scaling.maxReplicas) $partitions) }}
{{ $path }}.{{ $scaler }}.maxReplicas: more pods than kafka.partitions ({{ $partitions }}) would idle; lower it
{{- end }}
{{- end }}
{{- if and $consumer.keda.enabled (gt (int $consumer.keda.minReplicas) (int $consumer.keda.maxReplicas)) }}
{{ $path }}.keda.minReplicas: must not exceed maxReplicas
{{- end }}
{{- if and $consumer.keda.enabled (ne $root.Values.kafka.securityProtocol "PLAINTEXT") (include "drx-bridge.strimziUser" (list $root $consumer)) }}
{{ $path }}.keda.enabled: KEDA needs a login whose keys are named as in {{ $path }}.kafka, and the Secret of a user of Strimzi has others; set {{ $path }}.kafka.{{ ternary "credentialsSecret" "clientCertificateSecret" (hasPrefix "SASL" $root.Values.kafka.securityProtocol) }}, or {{ $path }}.keda.enabled to false
{{- end }}
{{- if gt (int $consumer.replicas) $partitions }}
{{ $path }}.replicas: more pods than kafka.partitions ({{ $partitions }}) would idle; lower it
{{- end }}
{{- if ge (float64 $consumer.kafka.sessionS) (float64 $consumer.kafka.maxPollS) }}
{{ $path }}.kafka.sessionS: must be less than maxPollS
{{- end }}
{{- $stop := addf $consumer.shutdown.drainS $consumer.shutdown.commitS }}
{{- if ge $stop (float64 $consumer.kafka.rebalanceS) }}
{{ $path }}.kafka.rebalanceS: must be more than shutdown.drainS and commitS together, since a rebalance drains as well
{{- end }}
{{- if gt (addf $stop 5) (float64 $consumer.shutdown.graceS) }}
{{ $path }}.shutdown.graceS: must be at least drainS, commitS and 5 s together, or the pod is killed amid its stop
{{- end }}
{{- end -}}
