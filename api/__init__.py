"""The API: Kubernetes-shaped REST and the controllers behind it. Owns every write to objects; never touches Docker."""
