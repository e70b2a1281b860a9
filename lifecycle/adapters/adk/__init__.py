"""Google ADK's sessions: `Runner(app_name=..., agent=..., session_service=LifecycleSessionService(manager))`."""

from lifecycle.adapters.adk.keys import Keys
from lifecycle.adapters.adk.service import LifecycleSessionService

__all__ = ["Keys", "LifecycleSessionService"]
