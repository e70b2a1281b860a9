"""What each call does, written once as generators that know neither SQL nor drivers."""
