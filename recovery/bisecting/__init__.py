"""Since when: two engines, two journals, two revisions, and the first command at which they part."""
