"""Model -> facts: which channels can go together, and why the others cannot. Changes nothing."""
