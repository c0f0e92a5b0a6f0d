"""What the gateway tells about itself: frozen records, and listeners that make logs and metrics of them.

``metrics`` is not imported here: ``processes.configure_multiprocess`` has to run before prometheus_client is loaded.
"""

from poe_gateway.telemetry.events import Event
from poe_gateway.telemetry.hub import Listener, Recorder, Telemetry

__all__ = ["Event", "Listener", "Recorder", "Telemetry"]
