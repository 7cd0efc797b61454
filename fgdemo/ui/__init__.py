"""The app's interface: one file a tab, whose callbacks only translate to library calls."""

import os

# Gradio reads it when it is imported; somebody who wants its statistics can still set it.
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
