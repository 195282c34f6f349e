{{/*
How the world gets to the edge: by Istio's own Gateway, or by one of the Gateway API. Argo CD applies it when the services
are there.
*/}}
{{- define "stoa-mesh.gateway" -}}
{{- $mesh := .Values.global.mesh }}
{{- $host := include "stoa-service.mesh.host" (list . "edge") }}
{{- $tls := .Values.global.ingress.tlsSecret -}}
{{- if eq .Values.global.ingress.kind "istio" }}
apiVersion: networking.istio.io/v1
kind: Gateway
metadata:
  name: stoa
  labels: {{- include "stoa-service.labels" . | nindent 4 }}
  annotations: {argocd.argoproj.io/sync-wave: "1"}
spec:
  selector: {{- toYaml .Values.global.ingress.selector | nindent 4 }}
  servers:
    - port: {number: 80, name: http, protocol: HTTP}
      hosts: {{- toYaml .Values.global.ingress.hosts | nindent 8 }}
      {{- if $tls }}
      tls: {httpsRedirect: true}
    - port: {number: 443, name: https, protocol: HTTPS}
      hosts: {{- toYaml .Values.global.ingress.hosts | nindent 8 }}
      tls: {mode: SIMPLE, credentialName: {{ $tls }}, minProtocolVersion: TLSV1_2}
      {{- end }}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata:
  name: shop
  labels: {{- include "stoa-service.labels" . | nindent 4 }}
  annotations: {argocd.argoproj.io/sync-wave: "1"}
spec:
  hosts: {{- toYaml .Values.global.ingress.hosts | nindent 4 }}
  gateways: [stoa]
  http:
    - name: all
      route:
        - destination: {host: {{ $host }}, port: {number: 8080}}
      headers:
        response: {remove: [x-envoy-upstream-service-time, x-envoy-decorator-operation]}
      timeout: {{ .Values.global.ingress.timeout }}
      retries: {{- toYaml $mesh.retries | nindent 8 }}
{{- else if eq .Values.global.ingress.kind "gateway-api" }}
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata:
  name: stoa
  namespace: {{ .Values.global.ingress.namespace }}
  labels: {{- include "stoa-service.labels" . | nindent 4 }}
  annotations: {argocd.argoproj.io/sync-wave: "1"}
spec:
  gatewayClassName: istio
  listeners:
    - name: http
      port: 80
      protocol: HTTP
      allowedRoutes: &from-the-shop
        namespaces:
          from: Selector
          selector:
            matchLabels: {kubernetes.io/metadata.name: {{ .Release.Namespace }}}
    {{- if $tls }}
    - name: https
      port: 443
      protocol: HTTPS
      tls:
        mode: Terminate
        certificateRefs: [{name: {{ $tls }}}]
      allowedRoutes: *from-the-shop
    {{- end }}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata:
  name: shop
  labels: {{- include "stoa-service.labels" . | nindent 4 }}
  annotations: {argocd.argoproj.io/sync-wave: "1"}
spec:
  parentRefs:
    - {name: stoa, namespace: {{ .Values.global.ingress.namespace }}{{ if $tls }}, sectionName: https{{ end }}}
  {{- with without .Values.global.ingress.hosts "*" }}
  hostnames: {{- toYaml . | nindent 4 }}
  {{- end }}
  rules:
    - matches:
        - path: {type: PathPrefix, value: /}
      backendRefs:
        - {name: edge, port: 8080}
      timeouts: {request: {{ .Values.global.ingress.timeout }}}
{{- if $tls }}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata:
  name: shop-to-https
  labels: {{- include "stoa-service.labels" . | nindent 4 }}
  annotations: {argocd.argoproj.io/sync-wave: "1"}
spec:
  parentRefs:
    - {name: stoa, namespace: {{ .Values.global.ingress.namespace }}, sectionName: http}
  {{- with without .Values.global.ingress.hosts "*" }}
  hostnames: {{- toYaml . | nindent 4 }}
  {{- end }}
  rules:
    - filters:
        - type: RequestRedirect
          requestRedirect: {scheme: https, statusCode: 301}
{{- end }}
{{- end }}
{{- if ne .Values.global.ingress.kind "nginx" }}
---
# What Istio has no other word for. A client may name its request: by itself a gateway gives every request from outside a
# name of its own. And who sends too much gets to read why, though it is still sending when the edge has answered.
apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata:
  name: stoa-gateway
  namespace: {{ .Values.global.ingress.namespace }}
  labels: {{- include "stoa-service.labels" . | nindent 4 }}
spec:
  workloadSelector:
    {{- $pods := dict "istio" .Values.global.ingress.selector "gateway-api" (dict "gateway.networking.k8s.io/gateway-name" "stoa") }}
    labels: {{- toYaml (get $pods .Values.global.ingress.kind) | nindent 6 }}
  configPatches:
    - applyTo: NETWORK_FILTER
      match:
        context: GATEWAY
        listener: {filterChain: {filter: {name: envoy.filters.network.http_connection_manager}}}
      patch:
        operation: MERGE
        value:
          typed_config:
            "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
            delayed_close_timeout: 5s
            preserve_external_request_id: true
            # Nor is a part of the name replaced by whether the request is traced.
            request_id_extension:
              typed_config:
                "@type": type.googleapis.com/envoy.extensions.request_id.uuid.v3.UuidRequestIdConfig
                pack_trace_reason: false
{{- end }}
{{- end }}
