"""What every training of the course shares. Taught in ch06; used in ch08."""
