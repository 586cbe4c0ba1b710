"""Drawing: what was computed elsewhere, as pictures and pages."""
