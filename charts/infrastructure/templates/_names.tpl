{{/* Labels of an object of a server: (dict "root" $ "name" "postgres"). */}}
{{- define "infrastructure.labels" -}}
{{ include "infrastructure.selector" . }}
app.kubernetes.io/part-of: stoa
app.kubernetes.io/version: {{ .root.Values.image.tag | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
{{- end }}

{{/* What its pods are found by. */}}
{{- define "infrastructure.selector" -}}
app.kubernetes.io/name: {{ .name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{- end }}

{{/* Who may speak to a server: those whose declarations have it, and operators. */}}
{{- define "infrastructure.callers" -}}
{{- append (get .root.Values.callers .name | default list) .root.Values.shop.operators | toYaml }}
{{- end }}

{{/* The identity of a service account of the shop: (dict "root" $ "account" "order"). */}}
{{- define "infrastructure.principal" -}}
{{ .root.Values.mesh.trustDomain }}/ns/{{ .root.Values.shop.namespace }}/sa/{{ .account }}
{{- end }}

{{/* Where the vault has an account's password: operators' accounts are together. */}}
{{- define "infrastructure.vaultKey" -}}
{{ ternary "operator" . (has . (list "stoa_readonly" "stoa-readonly" "operator")) }}
{{- end }}

{{/* A URL with an account, the password being filled in by External Secrets: (dict "url" … "user" … "password" … "database" …). */}}
{{- define "infrastructure.url" -}}
{{ .url | replace "{user}" .user | replace "{password}" (printf "{{ .%s }}" .password) | replace "{database}" .database }}
{{- end }}

{{/*
A server's certificate, of the authority that services know (`authority` in the vault), in the Secret <name>-certificate:
(dict "root" $ "name" "kafka" "hosts" (list …) "labels" (dict …)).
*/}}
{{- define "infrastructure.certificate" -}}
apiVersion: cert-manager.io/v1
kind: Certificate
metadata:
  name: {{ .name }}
  labels: {{- include "infrastructure.labels" . | nindent 4 }}
spec:
  secretName: {{ .name }}-certificate
  {{- with .labels }}
  secretTemplate: {labels: {{ toJson . }}}
  {{- end }}
  issuerRef: {{- toYaml .root.Values.certificates.issuer | nindent 4 }}
  commonName: {{ first .hosts }}
  dnsNames: {{- toYaml .hosts | nindent 4 }}
  # Strimzi and OpenSearch read no other form.
  privateKey: {algorithm: ECDSA, encoding: PKCS8, rotationPolicy: Always}
{{- end }}

{{/* The databases in PostgreSQL: of services, and of what keeps its own data there. */}}
{{- define "infrastructure.databases" -}}
{{- $found := get .Values.callers "postgres" | default list }}
{{- range list "registry" "keycloak" }}
{{- if (get $.Values.operators .).enabled }}{{- $found = append $found . }}{{- end }}
{{- end }}
{{- toYaml $found }}
{{- end }}
