{{/*
All objects of a service, or of a chart with a container and ports of its own: `stoa-service.render` (list . OPTIONS).
Each part below is given a context: the chart, the release, `Values` in their three layers (what is declared, what
holds for all workloads, what the release says of this one), and what a workload that is no service has otherwise.
*/}}
{{- define "stoa-service.all" -}}
{{- include "stoa-service.render" (list . (dict
  "container" "stoa-service.container"
  "configuration" "stoa-service.configuration"
  "port" (dict "name" "grpc" "number" 9000)
  "metrics" (dict "name" "http-metrics" "number" 9100)
  "callers" "stoa-service.callers"
  "mesh" "stoa-service.mesh"
)) }}
{{- end }}

{{- define "stoa-service.render" -}}
{{- $chart := first . -}}
{{- $global := (index $chart.Values "stoa-service").global -}}
{{- $declared := $chart.Values.declared | default dict -}}
{{- $own := omit $chart.Values "declared" "global" "stoa-service" -}}
{{- $values := mustMergeOverwrite (deepCopy $declared) (deepCopy $global.defaults) $own (dict "global" $global) -}}
{{- $context := mustMerge (dict "Chart" $chart.Chart "Release" $chart.Release "Values" $values) (last .) -}}
{{- $parts := list
  $context.configuration
  "stoa-service.service-account"
  "stoa-service.external-secret"
  "stoa-service.deployment"
  "stoa-service.rollout"
  "stoa-service.service"
  "stoa-service.scaling"
  "stoa-service.disruption"
  "stoa-service.network"
  "stoa-service.monitor"
  $context.mesh
-}}
{{- range compact $parts }}
{{- with include . $context | trim }}
---
{{ . }}
{{- end }}
{{- end }}
{{- end }}
