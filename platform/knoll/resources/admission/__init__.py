"""From the body of a write to the object that is stored: parsed, converted, defaulted, checked. Pure."""
