"""Orders: event-sourced, and the saga that carries them."""
