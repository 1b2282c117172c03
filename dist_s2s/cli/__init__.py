"""What the commands share: arguments, errors in one line, torchrun without its report."""
