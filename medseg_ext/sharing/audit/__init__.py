"""Static audit of a MONAI bundle, anybody's: nothing of it is executed, imported or unpickled."""

from __future__ import annotations

from medseg_ext.sharing.audit.audit import Rules, audit_bundle, read_rules
from medseg_ext.sharing.findings import Finding, Verdict

__all__ = ["Finding", "Rules", "Verdict", "audit_bundle", "read_rules"]
