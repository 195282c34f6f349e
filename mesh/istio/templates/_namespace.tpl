{{/* The whole namespace: certificates or nothing, and nobody may call what no other policy lets him. */}}
{{- define "stoa-mesh.namespace" -}}
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata:
  name: default
  labels: {{- include "stoa-service.labels" . | nindent 4 }}
spec:
  mtls: {mode: STRICT}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata:
  name: deny-all
  labels: {{- include "stoa-service.labels" . | nindent 4 }}
spec: {}
---
# For pods without one of their own, such as an operator's Jobs: the shop and what it stands on, and nothing else.
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata:
  name: default
  labels: {{- include "stoa-service.labels" . | nindent 4 }}
spec:
  egress:
    - hosts:
        - "./*"
        {{- range $server := .Values.global.infrastructure }}
        {{- range $server.egress | default (list $server.host) }}
        - {{ include "stoa-service.mesh.reachable" (list $ .) | quote }}
        {{- end }}
        {{- end }}
        {{- range .Values.global.mesh.egress }}
        - {{ . | quote }}
        {{- end }}
  outboundTrafficPolicy: {mode: REGISTRY_ONLY}
{{- end }}
