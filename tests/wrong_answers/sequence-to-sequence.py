from answers import right, wrong
