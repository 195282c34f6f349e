{{/*
NGINX and cert-manager in the place of Istio's gateway.

In the mesh NGINX has a sidecar of its own, which speaks mTLS to the edge and chooses one of its pods: so NGINX sends to
the service, by its name in the cluster. The mesh has to admit the ServiceAccount that NGINX runs as.
*/}}
{{- define "edge.ingress" -}}
{{- $ingress := .Values.global.ingress -}}
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  {{- include "stoa-service.metadata" . | nindent 2 }}
  annotations:
    argocd.argoproj.io/sync-wave: "1"
    nginx.ingress.kubernetes.io/ssl-redirect: "true"
    # The edge says how large a request may be, and answers in its own form.
    nginx.ingress.kubernetes.io/proxy-body-size: "0"
    {{- if .Values.global.mesh.enabled }}
    nginx.ingress.kubernetes.io/service-upstream: "true"
    nginx.ingress.kubernetes.io/upstream-vhost: {{ include "stoa-service.mesh.host" (list . .Chart.Name) }}
    {{- end }}
spec:
  ingressClassName: {{ $ingress.nginx.className }}
  tls:
    - {hosts: {{ toJson $ingress.hosts }}, secretName: {{ .Chart.Name }}-certificate}
  rules:
    {{- range $ingress.hosts }}
    - host: {{ . | quote }}
      http:
        paths:
          - path: /
            pathType: Prefix
            backend: {service: {name: {{ $.Chart.Name }}, port: {name: http}}}
    {{- end }}
{{- end }}

{{- define "edge.certificate" -}}
apiVersion: cert-manager.io/v1
kind: Certificate
metadata:
  # Without a mesh the edge has one of its own name as well, as all workloads.
  name: {{ .Chart.Name }}-ingress
  labels: {{- include "stoa-service.labels" . | nindent 4 }}
spec:
  secretName: {{ .Chart.Name }}-certificate
  dnsNames: {{- toYaml .Values.global.ingress.hosts | nindent 4 }}
  privateKey: {algorithm: ECDSA, size: 256, rotationPolicy: Always}
  issuerRef: {kind: Issuer, name: {{ .Chart.Name }}}
{{- end }}

{{/* The shop's own, so that it needs no right beyond its namespace. */}}
{{- define "edge.issuer" -}}
{{- $nginx := .Values.global.ingress.nginx -}}
apiVersion: cert-manager.io/v1
kind: Issuer
metadata: {{- include "stoa-service.metadata" . | nindent 2 }}
spec:
  {{- if eq $nginx.issuer "selfsigned" }}
  selfSigned: {}
  {{- else }}
  acme:
    server: {{ $nginx.acmeServer }}
    email: {{ required "global.ingress.nginx.email: whom Let's Encrypt writes to" $nginx.email | quote }}
    privateKeySecretRef: {name: {{ .Chart.Name }}-acme-account}
    solvers:
      - http01:
          ingress:
            ingressClassName: {{ $nginx.className }}
            podTemplate:
              metadata:
                # It lives for a minute, and whoever asks it is no part of the mesh.
                labels: {sidecar.istio.io/inject: "false"}
  {{- end }}
{{- end }}

{{/* The pod by which cert-manager answers Let's Encrypt, which asks for it through NGINX. */}}
{{- define "edge.challenge-network" -}}
{{- if and .Values.global.network.enabled (ne .Values.global.ingress.nginx.issuer "selfsigned") -}}
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: acme-challenge
  labels: {{- include "stoa-service.labels" . | nindent 4 }}
spec:
  podSelector:
    matchLabels: {acme.cert-manager.io/http01-solver: "true"}
  policyTypes: [Ingress]
  ingress:
    - ports: [{port: 8089}]
      from: {{- toYaml .Values.global.network.ingress | nindent 8 }}
{{- end }}
{{- end }}
