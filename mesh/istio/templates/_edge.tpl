{{/* The edge: the gateway calls it for the world, and services ask it for the keys that tokens are checked by. */}}
{{- define "stoa-mesh.edge" -}}
{{- $mesh := .Values.global.mesh }}
{{- $host := include "stoa-service.mesh.host" (list . "edge") }}
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata:
  name: edge
  labels: {{- include "stoa-service.labels" . | nindent 4 }}
spec:
  selector:
    matchLabels: {app.kubernetes.io/name: edge}
  action: ALLOW
  rules:
    - from:
        - source:
            principals: {{- include "stoa-mesh.ingress-principals" . | nindent 14 }}
      to:
        - operation:
            ports: ["8080"]
    - from:
        - source:
            principals: [{{ include "stoa-service.mesh.principal" (list . "*") }}]
      to:
        - operation:
            ports: ["8080"]
            methods: [GET]
            paths: [/api/v1/auth/jwks]
    {{- with .Values.edge.rules }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata:
  name: edge
  labels: {{- include "stoa-service.labels" . | nindent 4 }}
spec:
  workloadSelector:
    labels: {app.kubernetes.io/name: edge}
  ingress:
    - port: {number: 8080, protocol: HTTP, name: http}
      defaultEndpoint: 127.0.0.1:8080
  egress:
    - hosts:
        - "./*"
        {{- range $mesh.egress }}
        - {{ . | quote }}
        {{- end }}
  outboundTrafficPolicy: {mode: REGISTRY_ONLY}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata:
  name: edge
  labels: {{- include "stoa-service.labels" . | nindent 4 }}
spec:
  host: {{ $host }}
  trafficPolicy:
    tls: {mode: ISTIO_MUTUAL}
    connectionPool:
      tcp: {maxConnections: 1024, connectTimeout: 1s}
      # Shorter than the edge's own, so that no request goes into a connection that is just being closed.
      http: {http1MaxPendingRequests: 1024, http2MaxRequests: 1024, idleTimeout: 120s}
    outlierDetection:
      # Of the edge's own health alone: what it passes on of a service is no fault of its.
      splitExternalLocalOriginErrors: true
      consecutiveLocalOriginFailures: {{ $mesh.outliers.failures }}
      consecutiveGatewayErrors: 0
      consecutive5xxErrors: 0
      interval: {{ $mesh.outliers.interval }}
      baseEjectionTime: {{ $mesh.outliers.ejection }}
      maxEjectionPercent: {{ $mesh.outliers.percent }}
    loadBalancer:
      simple: LEAST_REQUEST
      localityLbSetting: {enabled: true}
---
# Within the mesh. From outside the gateway's says the same.
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata:
  name: edge
  labels: {{- include "stoa-service.labels" . | nindent 4 }}
spec:
  hosts: [{{ $host }}]
  exportTo: ["."]
  http:
    - name: all
      route:
        - destination: {host: {{ $host }}}
      timeout: {{ $mesh.timeout }}
      retries: {{- toYaml $mesh.retries | nindent 8 }}
{{- end }}

{{/* Who calls the edge for the world. For a Gateway of the Gateway API Istio makes a ServiceAccount <Gateway>-<class>. */}}
{{- define "stoa-mesh.ingress-principals" -}}
{{- $ingress := .Values.global.ingress -}}
{{- $accounts := dict "istio" "istio-ingressgateway" "gateway-api" "stoa-istio" -}}
{{- with $ingress.principals -}}
{{ toYaml . }}
{{- else -}}
{{- $account := required "global.ingress.principals: who NGINX runs as" (get $accounts $ingress.kind) -}}
- {{ .Values.global.mesh.trustDomain }}/ns/{{ $ingress.namespace }}/sa/{{ $account }}
{{- end }}
{{- end }}
