"""Building blocks of HTML pages, contact sheets and plots."""
