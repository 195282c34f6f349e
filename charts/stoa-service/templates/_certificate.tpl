{{/*
Without a mesh a workload proves by a certificate who it is: cert-manager issues and renews it, and the workload takes up
the new one as it runs. Where the release names no issuer, somebody else puts the Secret <workload>-tls there.
*/}}
{{- define "stoa-service.certificate" -}}
{{- with .Values.global.certificates.issuer }}
{{- if not $.Values.global.mesh.enabled -}}
apiVersion: cert-manager.io/v1
kind: Certificate
metadata: {{- include "stoa-service.metadata" $ | nindent 2 }}
spec:
  secretName: {{ $.Chart.Name }}-tls
  issuerRef: {{- toYaml . | nindent 4 }}
  commonName: {{ $.Chart.Name }}
  dnsNames: [{{ $.Chart.Name }}.stoa.internal]
  uris: [{{ include "stoa-service.identities" $ }}{{ $.Chart.Name }}]
  usages: [digital signature, server auth, client auth]
  privateKey: {algorithm: ECDSA, size: 256, rotationPolicy: Always}
  duration: 2160h
  renewBefore: 720h
{{- end }}
{{- end }}
{{- end }}
