"""Imported graphs: nobody says what their inputs and outputs mean."""
