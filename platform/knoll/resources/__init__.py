"""The kinds of serving.knative.dev: models, defaults, validation, conditions. Pure: no clock, no I/O."""
