{{/*
What the mesh knows of a service: who may call what of it, whom it may call, whose tokens are good, and how calls
reach its instances. `callers`, `calls` and `needs` are generated from the policies in proto/ and the declaration
(`stoa gen`); the rest is the same for all services. docs/adr/0037-the-mesh.md says why it is so.
*/}}
{{- define "stoa-service.mesh" -}}
{{- if .Values.global.mesh.enabled }}
{{ include "stoa-service.mesh.authorization-policy" . }}
{{- if .Values.global.mesh.issuers }}
---
{{ include "stoa-service.mesh.request-authentication" . }}
{{- end }}
---
{{ include "stoa-service.mesh.sidecar" . }}
---
{{ include "stoa-service.mesh.destination-rule" . }}
---
{{ include "stoa-service.mesh.virtual-service" . }}
{{- end }}
{{- end }}

{{/* An identity of this release, by the name of its ServiceAccount: list CONTEXT NAME. */}}
{{- define "stoa-service.mesh.principal" -}}
{{- $context := first . -}}
{{- $mesh := $context.Values.global.mesh -}}
{{- printf "%s/ns/%s/sa/%s" $mesh.trustDomain $context.Release.Namespace (last .) }}
{{- end }}

{{/* The full name of a Service of this release: list CONTEXT NAME. */}}
{{- define "stoa-service.mesh.host" -}}
{{- $context := first . -}}
{{- $mesh := $context.Values.global.mesh -}}
{{- printf "%s.%s.svc.%s" (last .) $context.Release.Namespace $mesh.clusterDomain }}
{{- end }}

{{/*
How a Sidecar names a host that may be called: list CONTEXT HOST. A Service (kafka.stoa-infrastructure, with or without
svc.cluster.local) lies in its namespace; any other host is a ServiceEntry of this release's. So a host outside of the
cluster has three labels or more.
*/}}
{{- define "stoa-service.mesh.reachable" -}}
{{- $context := first . -}}
{{- $host := last . -}}
{{- $mesh := $context.Values.global.mesh -}}
{{- $short := $host | trimSuffix (printf ".%s" $mesh.clusterDomain) | trimSuffix ".svc" -}}
{{- $labels := splitList "." $short -}}
{{- if and (eq (len $labels) 2) (not (hasPrefix "*" $host)) -}}
{{- printf "%s/%s.svc.%s" (last $labels) $short $mesh.clusterDomain }}
{{- else if eq (len $labels) 1 -}}
{{- printf "./%s.%s.svc.%s" $short $context.Release.Namespace $mesh.clusterDomain }}
{{- else -}}
{{- printf "./%s" $host }}
{{- end }}
{{- end }}

{{/* Who may call what; whoever is not named here is refused, by the deny-all of the namespace too. */}}
{{- define "stoa-service.mesh.authorization-policy" -}}
{{- $mesh := .Values.global.mesh -}}
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{- include "stoa-service.metadata" . | nindent 2 }}
spec:
  selector:
    matchLabels: {{- include "stoa-service.selector" . | nindent 6 }}
  action: ALLOW
  rules:
    {{- range $caller, $paths := .Values.callers }}
    - from:
        - source:
            principals: [{{ include "stoa-service.mesh.principal" (list $ $caller) }}]
      to:
        - operation:
            ports: ["9000"]
            methods: [POST]
            paths: {{- toYaml $paths | nindent 14 }}
    {{- end }}
    - from:
        - source:
            principals: {{- append $mesh.metricsReaders (include "stoa-service.mesh.principal" (list . "ops")) | toYaml | nindent 14 }}
      to:
        - operation:
            ports: ["9100"]
            methods: [GET]
            paths: [/metrics]
{{- end }}

{{/*
Whose tokens are good: one that is shown must be of an issuer of these. Which call needs one, and what it then allows,
the service says, which sees the token too. The proxy has the shop's own keys from the edge, if istiod is told so
(PILOT_JWT_ENABLE_REMOTE_JWKS=hybrid).
*/}}
{{- define "stoa-service.mesh.request-authentication" -}}
{{- $mesh := .Values.global.mesh -}}
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {{- include "stoa-service.metadata" . | nindent 2 }}
spec:
  selector:
    matchLabels: {{- include "stoa-service.selector" . | nindent 6 }}
  jwtRules:
    {{- range $mesh.issuers }}
    - issuer: {{ .issuer | quote }}
      audiences: {{- toYaml .audiences | nindent 8 }}
      jwksUri: {{ .jwksUri | default (printf "http://%s:8080/api/v1/auth/jwks" (include "stoa-service.mesh.host" (list $ "edge"))) }}
      forwardOriginalToken: true
    {{- end }}
{{- end }}

{{/*
What the pod's proxy hands to the service, on loopback, where nobody else reaches it; and whom the service may call.
The edge has the keys that tokens are checked by.
*/}}
{{- define "stoa-service.mesh.sidecar" -}}
{{- $mesh := .Values.global.mesh -}}
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {{- include "stoa-service.metadata" . | nindent 2 }}
spec:
  workloadSelector:
    labels: {{- include "stoa-service.selector" . | nindent 6 }}
  ingress:
    - port: {number: 9000, protocol: GRPC, name: grpc}
      defaultEndpoint: 127.0.0.1:9000
    - port: {number: 9100, protocol: HTTP, name: http-metrics}
      defaultEndpoint: 127.0.0.1:9100
  egress:
    - hosts:
        {{- range append .Values.calls "edge" }}
        - ./{{ include "stoa-service.mesh.host" (list $ .) }}
        {{- end }}
        {{- range $need := .Values.needs }}
        {{- $server := required (printf "global.infrastructure.%s is not set" $need) (get $.Values.global.infrastructure $need) }}
        {{- range $server.egress | default (list $server.host) }}
        - {{ include "stoa-service.mesh.reachable" (list $ .) | quote }}
        {{- end }}
        {{- end }}
        {{- range $mesh.egress }}
        - {{ . | quote }}
        {{- end }}
  outboundTrafficPolicy: {mode: REGISTRY_ONLY}
{{- end }}

{{/*
How calls are spread over the instances: those of the caller's zone first, none that fails again and again, and no more
at once than can be answered soon.
*/}}
{{- define "stoa-service.mesh.destination-rule" -}}
{{- $mesh := .Values.global.mesh -}}
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{- include "stoa-service.metadata" . | nindent 2 }}
spec:
  host: {{ include "stoa-service.mesh.host" (list . .Chart.Name) }}
  exportTo: ["."]
  trafficPolicy:
    tls: {mode: ISTIO_MUTUAL}
    connectionPool:
      tcp: {maxConnections: {{ $mesh.connections.tcp }}, connectTimeout: 1s}
      http:
        http1MaxPendingRequests: {{ $mesh.connections.pending }}
        http2MaxRequests: {{ $mesh.connections.requests }}
    outlierDetection:
      consecutiveGatewayErrors: {{ $mesh.outliers.failures }}
      interval: {{ $mesh.outliers.interval }}
      baseEjectionTime: {{ $mesh.outliers.ejection }}
      maxEjectionPercent: {{ $mesh.outliers.percent }}
    loadBalancer:
      simple: LEAST_REQUEST
      localityLbSetting: {enabled: true}
  {{- if .Values.rollout.enabled }}
  # Argo Rollouts adds which pods are of which version.
  subsets:
    {{- range list "stable" "canary" }}
    - name: {{ . }}
      labels: {{- include "stoa-service.selector" $ | nindent 8 }}
    {{- end }}
  {{- end }}
{{- end }}

{{/*
How long a call may take, and when the proxy sends it to another instance: if no instance has read it. What may have
been read is sent again by the callers, if the contract says that it is idempotent; to do it here too would multiply.
*/}}
{{- define "stoa-service.mesh.virtual-service" -}}
{{- $mesh := .Values.global.mesh -}}
{{- $host := include "stoa-service.mesh.host" (list . .Chart.Name) -}}
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{- include "stoa-service.metadata" . | nindent 2 }}
spec:
  hosts: [{{ $host }}]
  exportTo: ["."]
  http:
    - name: all
      route:
        {{- if .Values.rollout.enabled }}
        # Argo Rollouts changes the weights as a new version comes.
        - destination: {host: {{ $host }}, subset: stable}
          weight: 100
        - destination: {host: {{ $host }}, subset: canary}
          weight: 0
        {{- else }}
        - destination: {host: {{ $host }}}
        {{- end }}
      timeout: {{ $mesh.timeout }}
      retries: {{- toYaml $mesh.retries | nindent 8 }}
{{- end }}
