"""Why a command came out otherwise: experiments in child processes, restores, and the sentence they support."""
