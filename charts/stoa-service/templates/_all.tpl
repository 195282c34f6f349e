{{/*
All objects of a service. A chart of something else gives `stoa-service.render` (list . OPTIONS) what it has otherwise.
Each part is given a context: the chart, the release, the options, and `Values` in their layers: what is declared, what
holds for all workloads, what the release says of this one.
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
{{- $global := $chart.Values.global -}}
{{- $own := omit $chart.Values "declared" "global" -}}
{{- $layers := list (deepCopy $chart.Values.declared) (deepCopy $global.defaults) (deepCopy $own) -}}
{{- $values := mustMergeOverwrite (index $layers 0) (index $layers 1) (index $layers 2) (dict "global" $global) -}}
{{- $context := mustMerge (dict "Chart" $chart.Chart "Release" $chart.Release "Values" $values) (last .) -}}
{{- $parts := list
  $context.configuration
  "stoa-service.service-account"
  "stoa-service.certificate"
  "stoa-service.deployment"
  "stoa-service.rollout"
  "stoa-service.service"
  "stoa-service.scaling"
  "stoa-service.disruption"
  "stoa-service.network"
  "stoa-service.monitor"
  $context.mesh
-}}
{{- range compact ($context.parts | default $parts) }}
{{- with include . $context | trim }}
---
{{ . }}
{{- end }}
{{- end }}
{{- end }}
