"""What happens by itself: a metronome, one leader over all processes, and duties that may run twice without harm."""
