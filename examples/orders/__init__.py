"""An order system, by choreography and by orchestration, with everything that can go wrong; see its README."""
