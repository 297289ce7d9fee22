"""Pods and Knative's internal objects, kept in line with what the autoscaler reports."""
