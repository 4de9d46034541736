"""What users write: `@service`, `@api`, `depends(...)`, and what these leave on a class. Knows no process."""
