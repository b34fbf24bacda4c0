{{- define "drx-bridge.image" -}}
{{- include "drx-bridge.imageOf" (list . dict) -}}
{{- end -}}

{{- /* Image of a consumer, which may be a separate one: (list $ $consumer). */}}
{{- define "drx-bridge.imageOf" -}}
{{- $root := index . 0 -}}
{{- $own := (index . 1).image | default dict -}}
{{- $image := ternary $own $root.Values.image (not (empty $own.repository)) -}}
{{- with $root.Values.global.imageRegistry }}{{ . }}/{{ end }}{{ $image.repository }}{{ with $image.tag }}:{{ . }}{{ end }}{{ with $image.digest }}@{{ . }}{{ end }}
{{- end -}}

{{- /* Name of the service account of a component's pods, if it is not the namespace's: (list $ $component "ingress"). */}}
{{- define "drx-bridge.serviceAccountName" -}}
{{- $account := (index . 1).serviceAccount -}}
{{- $account.name | default (ternary (include "drx-bridge.name" (list (index . 0) (index . 2))) "" $account.create) -}}
{{- end -}}

{{- /* (list $ $component "ingress") */}}
{{- define "drx-bridge.serviceAccount" -}}
{{- $root := index . 0 -}}
{{- $account := (index . 1).serviceAccount -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {{ include "drx-bridge.serviceAccountName" . }}
  namespace: {{ $root.Release.Namespace }}
  labels:
    {{- include "drx-bridge.labels" (list $root (index . 2)) | nindent 4 }}
  {{- with $account.annotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
automountServiceAccountToken: false
{{- end -}}

{{- /* Start of every pod's spec, with `podSpec` merged over it: (list $ $component "service account" "ingress"); a Job has no fourth. */}}
{{- define "drx-bridge.podHead" -}}
{{- $root := index . 0 -}}
{{- $component := index . 1 -}}
{{- $head := dict "automountServiceAccountToken" false "enableServiceLinks" false "securityContext" (deepCopy $root.Values.podSecurityContext) -}}
{{- with index . 2 -}}
{{- $_ := set $head "serviceAccountName" . -}}
{{- end -}}
{{- range $root.Values.image.pullSecrets -}}
{{- $_ := set $head "imagePullSecrets" (append (default list $head.imagePullSecrets) (dict "name" .)) -}}
{{- end -}}
{{- $head = mergeOverwrite $head (deepCopy (default dict $component.podSpec)) -}}
{{- $spread := list -}}
{{- if gt (len .) 3 -}}
{{- $pods := dict "labelSelector" (dict "matchLabels" (include "drx-bridge.selector" (list $root (index . 3)) | fromYaml)) -}}
{{- range $head.topologySpreadConstraints -}}
{{- $spread = append $spread (merge . $pods) -}}
{{- end -}}
{{- end -}}
{{- $head = omit $head "topologySpreadConstraints" -}}
{{- with $spread -}}
{{- $_ := set $head "topologySpreadConstraints" . -}}
{{- end -}}
{{- toYaml $head -}}
{{- end -}}

{{- /* A YAML string with a table merged over it, key by key: (list "text" $table). */}}
{{- define "drx-bridge.over" -}}
{{- toYaml (mergeOverwrite (index . 0 | fromYaml) (deepCopy (default dict (index . 1)))) -}}
{{- end -}}

{{- /* A workload with the configured changes of it and of its first container: (list $component "text"). */}}
{{- define "drx-bridge.workload" -}}
{{- $workload := index . 1 | fromYaml -}}
{{- $_ := mergeOverwrite (first $workload.spec.template.spec.containers) (deepCopy (default dict (index . 0).container)) -}}
{{- include "drx-bridge.over" (list (toYaml $workload) (index . 0).workload) -}}
{{- end -}}

{{- /* Liveness checks only the event loop; a start may take two minutes, a response never five seconds. */}}
{{- define "drx-bridge.probes" -}}
startupProbe:
  httpGet:
    path: /livez
    port: management
  periodSeconds: 2
  timeoutSeconds: 5
  failureThreshold: 60
livenessProbe:
  httpGet:
    path: /livez
    port: management
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 3
readinessProbe:
  httpGet:
    path: /readyz
    port: management
  periodSeconds: 5
  timeoutSeconds: 5
  failureThreshold: 2
{{- end -}}

{{- /* Secrets common to ingress and consumers, as mounts and as volumes: (list $ $component "ingress"). */}}
{{- define "drx-bridge.commonMounts" -}}
{{- if include "drx-bridge.strimziUser" . }}
- name: {{ ternary "kafka" "kafka-client" (hasPrefix "SASL" (index . 0).Values.kafka.securityProtocol) }}
  mountPath: /etc/drx-bridge/{{ ternary "kafka" "kafka-client" (hasPrefix "SASL" (index . 0).Values.kafka.securityProtocol) }}
  readOnly: true
{{- end }}
{{- range $name, $secret := include "drx-bridge.commonSecrets" . | fromYaml }}
- name: {{ $name }}
  mountPath: /etc/drx-bridge/{{ $name }}
  readOnly: true
{{- end }}
{{- range $volume, $reference := include "drx-bridge.references" (index . 1) | fromJson }}
- name: {{ $volume }}
  mountPath: {{ include "drx-bridge.mountPath" $reference }}
  {{- if not $reference.claim }}
  readOnly: true
  {{- end }}
{{- end }}
{{- end -}}

{{- /* Objects in the options of a consumer, by the name of their volume. */}}
{{- define "drx-bridge.references" -}}
{{- $found := dict -}}
{{- range .options -}}
{{- if kindIs "map" . -}}
{{- $_ := set $found (include "drx-bridge.volumeName" .) . -}}
{{- end -}}
{{- end -}}
{{ toJson $found }}
{{- end -}}

{{- define "drx-bridge.commonVolumes" -}}
{{- if include "drx-bridge.strimziUser" . }}
{{- include "drx-bridge.strimziVolume" . }}
{{- end }}
{{- range $name, $secret := include "drx-bridge.commonSecrets" . | fromYaml }}
- name: {{ $name }}
  secret:
    secretName: {{ $secret }}
    defaultMode: 0440
{{- end }}
{{- range $volume, $reference := include "drx-bridge.references" (index . 1) | fromJson }}
- name: {{ $volume }}
  {{- if $reference.claim }}
  persistentVolumeClaim:
    claimName: {{ $reference.claim }}
  {{- else if $reference.configMap }}
  configMap:
    name: {{ $reference.configMap }}
  {{- else }}
  secret:
    secretName: {{ $reference.secret }}
    defaultMode: 0440
  {{- end }}
{{- end }}
{{- end -}}

{{- /* The Secret of a KafkaUser has other keys, and no user name: that is the name of the object. */}}
{{- define "drx-bridge.strimziVolume" -}}
{{- $user := include "drx-bridge.name" (list (index . 0) (index . 2)) }}
{{- if hasPrefix "SASL" (index . 0).Values.kafka.securityProtocol }}
- name: kafka
  projected:
    defaultMode: 0440
    sources:
      - secret:
          name: {{ $user }}
          items:
            - key: password
              path: password
      - downwardAPI:
          items:
            - path: username
              fieldRef:
                fieldPath: metadata.annotations['drx-bridge/kafka-user']
{{- else }}
- name: kafka-client
  secret:
    secretName: {{ $user }}
    defaultMode: 0440
    items:
      - key: user.crt
        path: tls.crt
      - key: user.key
        path: tls.key
{{- end }}
{{- end -}}

{{- define "drx-bridge.commonSecrets" -}}
{{- $root := index . 0 -}}
{{- $component := index . 1 -}}
{{- with $component.kafka.credentialsSecret }}
kafka: {{ . | quote }}
{{- end }}
{{- with $root.Values.kafka.caSecret }}
kafka-ca: {{ . | quote }}
{{- end }}
{{- with $component.kafka.clientCertificateSecret }}
kafka-client: {{ . | quote }}
{{- end }}
{{- with $component.registry.credentialsSecret }}
registry: {{ . | quote }}
{{- end }}
{{- with $root.Values.logIds.keySecret }}
log-ids: {{ . | quote }}
{{- end }}
{{- end -}}

{{- /*
Metadata of a pod: (list $ $component "read_model" "read_model-init"). A workload adds the text of its settings, whose sum
starts new pods when one of them changes.
*/}}
{{- define "drx-bridge.podMetadata" -}}
{{- $root := index . 0 -}}
{{- $component := index . 1 -}}
labels:
  {{- include "drx-bridge.selector" (list $root (index . 3)) | nindent 2 }}
  {{- with merge (deepCopy (default dict $component.podLabels)) (default dict $root.Values.commonLabels) }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- $annotations := default dict (include "drx-bridge.userAnnotation" . | fromYaml) -}}
{{- if gt (len .) 4 -}}
{{- $_ := set $annotations "checksum/config" (sha256sum (index . 4)) -}}
{{- end -}}
{{- with mergeOverwrite $annotations (default dict $component.podAnnotations) }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- /* Name of the KafkaUser, for a volume: (list $ $component "ingress"). */}}
{{- define "drx-bridge.userAnnotation" -}}
{{- if and (include "drx-bridge.strimziUser" .) (hasPrefix "SASL" (index . 0).Values.kafka.securityProtocol) -}}
drx-bridge/kafka-user: {{ include "drx-bridge.name" (list (index . 0) (index . 2)) }}
{{- end -}}
{{- end -}}
