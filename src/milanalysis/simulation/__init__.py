"""Events when nobody hands us files: generators whose likelihood is known."""
