{{- define "drx-bridge.image" -}}
{{- include "drx-bridge.imageOf" (list . dict) -}}
{{- end -}}

{{- /* Of a consumer, which may have an image of its own: (list $ $consumer). */}}
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
automountServiceAccountToken: {{ $account.automountToken }}
{{- end -}}

{{- /* Beginning of any pod's spec: (list $ $component "name of the service account"). */}}
{{- define "drx-bridge.podHead" -}}
{{- $root := index . 0 -}}
{{- $component := index . 1 -}}
{{- with index . 2 }}
serviceAccountName: {{ . }}
{{- end }}
automountServiceAccountToken: {{ $component.serviceAccount.automountToken }}
enableServiceLinks: false
{{- with $root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- with $root.Values.podSecurityContext }}
securityContext:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $component.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with $component.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $component.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $component.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $component.initContainers }}
initContainers:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- /* What a pod that stays has besides: (list $ $component "ingress"). */}}
{{- define "drx-bridge.podStay" -}}
{{- $root := index . 0 -}}
{{- $component := index . 1 -}}
terminationGracePeriodSeconds: {{ include "drx-bridge.number" $component.shutdown.graceS }}
{{- $pods := dict "matchLabels" (include "drx-bridge.selector" (list $root (index . 2)) | fromYaml) -}}
{{- $spread := list -}}
{{- range $component.topologySpreadConstraints -}}
{{- $spread = append $spread (mergeOverwrite (dict "maxSkew" 1 "whenUnsatisfiable" "ScheduleAnyway" "labelSelector" $pods) .) -}}
{{- end -}}
{{- with $spread }}
topologySpreadConstraints:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- /* Liveness asks only whether the event loop turns; a start may take two minutes, an answer never five seconds. */}}
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

{{- /* Secrets of what ingress and consumers have in common, as mounts and as volumes: (list $ $component "ingress"). */}}
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

{{- /* What the options of a consumer name, by the volume that it is mounted as. */}}
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

{{- /* The Secret of a KafkaUser has other keys, and no name of the user, which is that of its object. */}}
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

{{- /* Labels of a pod: (list $ $component.podLabels "ingress"). */}}
{{- define "drx-bridge.podLabels" -}}
{{ include "drx-bridge.selector" (list (index . 0) (index . 2)) }}
{{- with mergeOverwrite (deepCopy (default dict (index . 0).Values.commonLabels)) (index . 1) }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- /* The sum over the variables starts new pods when one of them changes. */}}
{{- define "drx-bridge.checksum" -}}
checksum/config: {{ sha256sum . }}
{{- end -}}

{{- /* (list $component "settings text" "further annotations") */}}
{{- define "drx-bridge.podAnnotations" -}}
{{ include "drx-bridge.checksum" (index . 1) }}
{{- with index . 2 }}
{{ . }}
{{- end }}
{{- with (index . 0).podAnnotations }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- /* Name of the KafkaUser, for a volume: (list $ $component "ingress"). */}}
{{- define "drx-bridge.userAnnotation" -}}
{{- if and (include "drx-bridge.strimziUser" .) (hasPrefix "SASL" (index . 0).Values.kafka.securityProtocol) -}}
drx-bridge/kafka-user: {{ include "drx-bridge.name" (list (index . 0) (index . 2)) }}
{{- end -}}
{{- end -}}
