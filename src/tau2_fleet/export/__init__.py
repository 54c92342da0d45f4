"""`tau2-fleet export`: what a run recorded, in the forms of other programs; one file a format in `formats/`."""
