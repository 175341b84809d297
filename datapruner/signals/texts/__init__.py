"""What texts are about: words, concepts and what tells a group's from the others', by counting alone."""
