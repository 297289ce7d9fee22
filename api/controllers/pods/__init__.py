"""Pods and Knative's internal objects, kept like what the autoscaler reports."""
