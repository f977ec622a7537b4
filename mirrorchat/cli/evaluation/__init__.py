"""How well MirrorChat hears and speaks, measured over recordings."""
