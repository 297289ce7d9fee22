"""The platform's configuration: Knative's ConfigMaps in namespace `knative-serving`, read into frozen values. Pure."""
