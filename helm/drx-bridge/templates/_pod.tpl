{{- define "drx-bridge.image" -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- end -}}

{{- /* Pod security "restricted"; 10001 is the image's user, and its group reads what is mounted. */}}
{{- define "drx-bridge.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "drx-bridge.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop:
    - ALL
{{- end -}}

{{- /* Beginning of a pod's spec: (list $ $component "ingress"). */}}
{{- define "drx-bridge.podHead" -}}
{{- $root := index . 0 -}}
{{- $component := index . 1 -}}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with $root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
securityContext:
  {{- include "drx-bridge.podSecurity" . | nindent 2 }}
terminationGracePeriodSeconds: {{ include "drx-bridge.number" $component.shutdown.graceS }}
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
topologySpreadConstraints:
  - topologyKey: {{ $component.topologySpread.topologyKey }}
    maxSkew: {{ $component.topologySpread.maxSkew }}
    whenUnsatisfiable: {{ $component.topologySpread.whenUnsatisfiable }}
    labelSelector:
      matchLabels:
        {{- include "drx-bridge.selector" (list $root (index . 2)) | nindent 8 }}
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

{{- /* Secrets of what ingress and consumers have in common, as mounts and as volumes: (list $ $component). */}}
{{- define "drx-bridge.commonMounts" -}}
{{- range $name, $secret := include "drx-bridge.commonSecrets" . | fromYaml }}
- name: {{ $name }}
  mountPath: /etc/drx-bridge/{{ $name }}
  readOnly: true
{{- end }}
{{- end -}}

{{- define "drx-bridge.commonVolumes" -}}
{{- range $name, $secret := include "drx-bridge.commonSecrets" . | fromYaml }}
- name: {{ $name }}
  secret:
    secretName: {{ $secret }}
    defaultMode: 0440
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
{{- /* Only the consumer `forward` has an endpoint, only `fhir` a server, only `hl7v2` a receiver. */}}
{{- $forward := dict "signingSecret" "forward" "caSecret" "forward-ca" "clientCertificateSecret" "forward-client" "headersSecret" "forward-headers" }}
{{- $fhir := dict "tokenSecret" "fhir" "smartKeySecret" "fhir-smart" "caSecret" "fhir-ca" "clientCertificateSecret" "fhir-client" }}
{{- $hl7v2 := dict "caSecret" "hl7v2-ca" "clientCertificateSecret" "hl7v2-client" }}
{{- range $peer, $volumes := dict "endpoint" $forward "server" $fhir "receiver" $hl7v2 }}
{{- range $name, $secret := default dict (get $component $peer) }}
{{- with $secret }}
{{ get $volumes $name }}: {{ . | quote }}
{{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "drx-bridge.podLabels" -}}
{{ include "drx-bridge.selector" (list (index . 0) (index . 2)) }}
{{- with (index . 1).podLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- /* The sum over the variables starts new pods when one of them changes. */}}
{{- define "drx-bridge.checksum" -}}
checksum/config: {{ sha256sum . }}
{{- end -}}

{{- /* (list $component "settings text") */}}
{{- define "drx-bridge.podAnnotations" -}}
{{ include "drx-bridge.checksum" (index . 1) }}
{{- with (index . 0).podAnnotations }}
{{ toYaml . }}
{{- end }}
{{- end -}}
