{{- /* Headless Service with an address for each pod of a component, ready or not: for scrapes and StatefulSets. (list $ "ingress") */}}
{{- define "drx-bridge.metricsService" -}}
{{- $root := index . 0 -}}
apiVersion: v1
kind: Service
metadata:
  name: {{ include "drx-bridge.name" . }}-metrics
  namespace: {{ $root.Release.Namespace }}
  labels:
    {{- include "drx-bridge.labels" . | nindent 4 }}
    drx-bridge/endpoint: metrics
spec:
  clusterIP: None
  publishNotReadyAddresses: true
  selector:
    {{- include "drx-bridge.selector" . | nindent 4 }}
  ports:
    - name: management
      port: 9090
      targetPort: management
      protocol: TCP
{{- end -}}

{{- /* (list $ "ingress" $component) */}}
{{- define "drx-bridge.pdb" -}}
{{- $root := index . 0 -}}
{{- $component := index . 2 -}}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ include "drx-bridge.name" . }}
  namespace: {{ $root.Release.Namespace }}
  labels:
    {{- include "drx-bridge.labels" . | nindent 4 }}
spec:
  maxUnavailable: {{ $component.pdb.maxUnavailable }}
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels:
      {{- include "drx-bridge.selector" . | nindent 6 }}
{{- end -}}

{{- /* (list $ "ingress" $component) */}}
{{- define "drx-bridge.hpa" -}}
{{- $root := index . 0 -}}
{{- $component := index . 2 -}}
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  name: {{ include "drx-bridge.name" . }}
  namespace: {{ $root.Release.Namespace }}
  labels:
    {{- include "drx-bridge.labels" . | nindent 4 }}
spec:
  scaleTargetRef:
    apiVersion: apps/v1
    kind: Deployment
    name: {{ include "drx-bridge.name" . }}
  minReplicas: {{ $component.hpa.minReplicas }}
  maxReplicas: {{ $component.hpa.maxReplicas }}
  metrics:
    - type: Resource
      resource:
        name: cpu
        target:
          type: Utilization
          averageUtilization: {{ $component.hpa.cpuPercent }}
  behavior:
    scaleDown:
      stabilizationWindowSeconds: 300
{{- end -}}

{{- /* One side of a rule; without peers it is open to all, on its ports. (list "from" $peers) */}}
{{- define "drx-bridge.peers" -}}
{{- with index . 1 -}}
{{ index $ 0 }}:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- /* Rule of a policy that allows DNS: networkPolicy.dns. */}}
{{- define "drx-bridge.dnsRule" -}}
{{- $namespace := dict "namespaceSelector" (dict "matchLabels" (dict "kubernetes.io/metadata.name" .namespace)) -}}
- ports:
    - port: {{ .port }}
      protocol: UDP
    - port: {{ .port }}
      protocol: TCP
  {{- include "drx-bridge.peers" (list "to" (default (list $namespace) .to)) | nindent 2 }}
{{- end -}}
