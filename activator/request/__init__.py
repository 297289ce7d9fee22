"""One request: its states, time-outs, and the activator's own responses."""
